"""A saved config as parameter of a flow run that the REST API creates, as the run form in the UI does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from config_kinds import KINDS, models
from server_api import connect

from chapkit_flows import Model, ModelConfig

Deployed = tuple[Model, type[ModelConfig], str]


@pytest.fixture(scope="module", params=models, ids=lambda model: model.name)
def deployed(server: str, request: pytest.FixtureRequest) -> Deployed:
    """A model with each kind of config, and the id of a deployment of its train flow."""
    model: Model = request.param
    deployment = model.train.to_deployment(name=f"train-{model.name}")
    return model, model.config, str(deployment.apply())


def create_run(server: str, deployment: str, config: Any) -> httpx.Response:
    parameters = {"config": config, "data": "data.csv"}
    with connect(server) as api:
        return api.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": parameters})


@pytest.mark.parametrize("values", ["defaults", "own"])
def test_saved_config_is_accepted_by_reference(server: str, deployed: Deployed, values: str) -> None:
    """A run may refer to a saved config by id and by slug, also when all its values are the defaults."""
    _, config_type, deployment = deployed
    needs_value = any(field.is_required() for field in config_type.model_fields.values())
    given = KINDS[config_type] if values == "own" or needs_value else {}
    document = str(config_type.model_validate(dict(given)).save(f"ref-{values}", overwrite=True))
    slug = f"{config_type.get_block_type_slug()}/ref-{values}"

    answers = [
        create_run(server, deployment, {"$ref": reference})
        for reference in ({"block_document_id": document}, {"block_document_slug": slug}, document)
    ]

    assert [201, 201, 201] == [answer.status_code for answer in answers], [answer.text for answer in answers]


def test_inline_values_are_accepted_and_wrong_ones_are_not(server: str, deployed: Deployed) -> None:
    """Values written into the run form are accepted; a horizon that is text is refused."""
    _, config_type, deployment = deployed
    inline = dict(KINDS[config_type])
    accepted = create_run(server, deployment, inline)
    refused = create_run(server, deployment, inline | {"prediction_periods": "many"})
    assert (201, 409) == (accepted.status_code, refused.status_code), (accepted.text, refused.text)
    assert "'many'" in refused.text


# What the first of Prefect's two run forms leaves of a schema before it lets the server check the values.
KEPT = {
    "$ref", "allOf", "anyOf", "blockTypeSlug", "block_type_slug", "const", "default", "definitions", "description",
    "enum", "example", "format", "items", "maxItems", "minItems", "position", "prefixItems", "properties", "required",
    "title", "type",
}  # fmt: skip


def as_in_first_form(schema: Any) -> Any:
    """A schema with the keywords that the first run form keeps."""
    if isinstance(schema, list):
        return [as_in_first_form(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = ("properties", "definitions")
    return {
        key: {name: as_in_first_form(part) for name, part in value.items()} if key in named else as_in_first_form(value)
        for key, value in schema.items()
        if key in KEPT
    }


@pytest.mark.parametrize("reduce", [as_in_first_form, lambda schema: schema], ids=["first form", "second form"])
def test_run_form_accepts_saved_config(server: str, deployed: Deployed, reduce: Callable[[Any], Any]) -> None:
    """Both run forms of the UI, which ask the server to check the values, accept a chosen config and inline values."""
    _, config_type, deployment = deployed
    document = str(config_type.model_validate(dict(KINDS[config_type])).save("form", overwrite=True))
    with connect(server) as api:
        schema = reduce(api.get(f"/deployments/{deployment}").json()["parameter_openapi_schema"])
        for config in ({"$ref": {"block_document_id": document}}, dict(KINDS[config_type])):
            values = {"config": config, "data": "data.csv"}
            answer = api.post("/ui/schemas/validate", json={"schema": schema, "values": values}).json()
            assert ([], True) == (answer.get("errors"), answer.get("valid")), answer


def test_block_type_has_only_its_own_fields(server: str, deployed: Deployed) -> None:
    """The form in which one creates a config shows the fields of the config, and nothing for the server's rules."""
    _, config_type, _ = deployed
    config_type.register_type_and_schema()
    with connect(server) as api:
        block_type = api.get(f"/block_types/slug/{config_type.get_block_type_slug()}").json()["id"]
        wanted = {"block_schemas": {"block_type_id": {"any_": [block_type]}}}
        newest = api.post("/block_schemas/filter", json=wanted).json()[0]
    assert len(config_type.model_fields) == len(newest["fields"]["properties"])
    assert "$ref" not in newest["fields"]["properties"]


def test_form_of_a_config_begins_with_the_fields_of_the_model(server: str, deployed: Deployed) -> None:
    """What the model's class adds stands in the form before the fields that every config has."""
    _, config_type, _ = deployed
    config_type.register_type_and_schema()
    shared = list(ModelConfig.model_fields)
    with connect(server) as api:
        block_type = api.get(f"/block_types/slug/{config_type.get_block_type_slug()}").json()["id"]
        wanted = {"block_schemas": {"block_type_id": {"any_": [block_type]}}}
        fields = api.post("/block_schemas/filter", json=wanted).json()[0]["fields"]["properties"]
    assert shared == sorted(fields, key=lambda name: fields[name]["position"])[-len(shared) :]


def test_run_form_offers_the_configs_of_that_model(server: str, deployed: Deployed) -> None:
    """The parameter's schema names the model's own block type, and no other."""
    _, config_type, deployment = deployed
    with connect(server) as api:
        schema = api.get(f"/deployments/{deployment}").json()["parameter_openapi_schema"]
    slugs = {
        name: definition["block_type_slug"]
        for name, definition in schema["definitions"].items()
        if "block_type_slug" in definition
    }
    assert {config_type.__name__: config_type.get_block_type_slug()} == slugs
