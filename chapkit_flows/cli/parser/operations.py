"""What the commands around configs, deployments and automations on the Prefect server take."""

from __future__ import annotations

from pathlib import Path

from chapkit_flows.cli.parser.options import (
    CONFIG_HELP,
    MODEL_HELP,
    URI_HELP,
    Commands,
    add_command,
    add_force,
    add_geo,
    add_group,
)


def add_operations(commands: Commands) -> None:
    """`blocks`, `configs`, `deploy`, `automations`, `limits`, `sample-data` and `doctor`."""
    _add_blocks(commands)
    _add_configs(commands)
    _add_deploy(commands)
    automations = add_group(commands, "automations", "what the Prefect server does when something happens")
    apply = add_command(automations, "apply", "automations:apply", "create or update automations on the Prefect server")
    apply.add_argument("path", metavar="PATH", type=Path, help="a YAML file, or a folder of them")
    _add_limits(commands)

    sample = add_command(commands, "sample-data", "samples:make", "make a data set that fits a model, to try it")
    sample.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    sample.add_argument("--out", metavar="FOLDER", type=Path, default=Path("sample-data"), help="default: %(default)s")
    add_force(sample)
    sample.add_argument("--places", metavar="N", type=int, default=5, help="default: %(default)s")
    sample.add_argument("--periods", metavar="N", type=int, help="periods of training data; default: five years")
    sample.add_argument("--horizon", metavar="N", type=int, help="periods of future data; default: the config's")
    sample.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")

    doctor = add_command(
        commands, "doctor", "doctor:examine", "check server, block types, database, store, disk and clock"
    )
    doctor.add_argument(
        "--pool",
        metavar="NAME",
        action="append",
        default=[],
        help="must have a live worker, as those of FILE's deployments must; may be repeated",
    )
    doctor.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        default=Path("prefect.yaml"),
        help="whose deployments and models are looked at too, if it is there (default: %(default)s)",
    )


def _add_limits(commands: Commands) -> None:
    limits = add_group(commands, "limits", "how many runs the Prefect server lets through at once")
    apply = add_command(
        limits, "apply", "limits:apply", "let one model train once at a time, whichever of its deployments starts it"
    )
    apply.add_argument("--file", metavar="FILE", type=Path, default=Path("prefect.yaml"), help="default: %(default)s")


def _add_blocks(commands: Commands) -> None:
    blocks = add_group(commands, "blocks", "configs as YAML documents")
    plan = add_command(
        blocks, "plan", "blocks:plan", "show what apply would change on the Prefect server, and write nothing"
    )
    plan.add_argument(
        "--exit-code", action="store_true", help="exit with 1 if something would change or was edited on the server"
    )
    apply = add_command(blocks, "apply", "blocks:apply", "register config types and save configs on the Prefect server")
    apply.add_argument("--dry-run", action="store_true", help="only show the plan")
    apply.add_argument("--yes", action="store_true", help="delete without asking what --prune names")
    apply.add_argument("--note", metavar="TEXT", help="what people should know, for the history of the configs")
    pull = add_command(
        blocks, "pull", "pull:pull", "write what was edited on the Prefect server back to the YAML files"
    )
    pull.add_argument("--new", action="store_true", help="make documents of saved configs that are in no file, too")
    plan.epilog = "Exit codes: 0 done; 1 with --exit-code: apply would change something, or find it edited; 2 an error."
    apply.epilog = "Exit codes: 0 done; 1 something was edited on the server, and left as it is; 2 an error."
    pull.epilog = "Exit codes: 0 done; 1 something differs that was not written; 2 an error."
    for parser in (plan, apply, pull):
        parser.add_argument("path", metavar="PATH", type=Path, help="a YAML file, or a folder of them")
    for parser in (plan, apply):
        parser.add_argument(
            "--prune", action="store_true", help="delete saved configs that are in no file, of the types in PATH only"
        )
    for parser, lost in ((apply, "the server"), (pull, "the file, too,")):
        parser.add_argument(
            "--overwrite", action="store_true", help=f"replace what was edited on {lost} since the last apply"
        )
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")


def _add_configs(commands: Commands) -> None:
    configs = add_group(commands, "configs", "saved configs and their history")
    listing = add_command(
        configs, "list", "configs:list_", "list the configs that were used or applied, with their version"
    )
    listing.add_argument("--type", metavar="SLUG", help="only configs of this block type, such as rain-config")
    show = add_command(configs, "show", "configs:show", "show the content of a version; secret values are masked")
    show.add_argument("what", metavar="WHAT", help="NAME, NAME@N, the id of a run, or the beginning of a digest")
    history = add_command(configs, "history", "configs:history", "list all versions of a config, the newest first")
    history.add_argument("name", metavar="NAME", help=CONFIG_HELP)
    diff = add_command(configs, "diff", "configs:diff_", "compare two configs; exit code 1 if they differ")
    for side in ("a", "b"):
        diff.add_argument(
            side,
            metavar=side.upper(),
            help="NAME (as it is saved now), NAME@N, the id of a run, the beginning of a digest, or FILE.yaml[#NAME]; "
            "secret values are masked on both sides, and so not compared",
        )
    diff.add_argument("--md", action="store_true", help="print a Markdown table")
    restore = add_command(
        configs, "restore", "configs:restore", "make an older version the content of the saved config again"
    )
    restore.add_argument("version", metavar="NAME@N", help="a version, as `configs history` lists them")
    use = add_command(
        configs, "use", "configs:use", "give a saved config the content of another one, so that runs use that"
    )
    use.add_argument("source", metavar="SOURCE", help="NAME, NAME@N, the id of a run, or the beginning of a digest")
    use.add_argument(
        "--as", dest="target", metavar="NAME", required=True, help="the saved config to change; made if it is not there"
    )
    for parser in (restore, use):
        parser.description = f"{parser.description} What was saved there is kept in its history, secret values stay."
        parser.add_argument("--note", metavar="TEXT", help="what people should know, for the history")
        parser.add_argument("--by", metavar="NAME", help="who does it; default: your user name")


def _add_deploy(commands: Commands) -> None:
    deploy = add_command(commands, "deploy", "deploy:deploy", "write a deployment of a model into prefect.yaml")
    deploy.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    deploy.add_argument(
        "--flow",
        choices=("retrain", "train", "predict", "backtest"),
        default="retrain",
        help="retrain trains only what is new; predict uses the newest trained model (default: %(default)s)",
    )
    deploy.add_argument("--schedule", metavar="CRON", help='when it runs by itself, such as "0 6 * * 1"')
    deploy.add_argument("--timezone", metavar="ZONE", help="of the schedule, such as Europe/Oslo; default: UTC")
    deploy.add_argument("--data", metavar="URI", help=f"training data: {URI_HELP}")
    deploy.add_argument("--historic", metavar="URI", help="for predict: data up to the forecast")
    deploy.add_argument("--future", metavar="URI", help="for predict: covariates of the periods to predict")
    add_geo(deploy)
    deploy.add_argument("--config", metavar="NAME", help="a saved config of the model, as name or type/name")
    deploy.add_argument("--pool", metavar="NAME", help="work pool; default: the one in the file, else forecasts")
    deploy.add_argument("--name", metavar="NAME", help="of the deployment; default: MODEL-FLOW")
    deploy.add_argument("--file", metavar="FILE", type=Path, default=Path("prefect.yaml"), help="default: %(default)s")
    deploy.add_argument("--dry-run", action="store_true", help="only show what would change")
    deploy.add_argument("--apply", action="store_true", help="deploy it too, with prefect deploy")
