"""On what: tables of place and period, their periods and polygons, and sample data."""

from chapkit_flows.data.geo import check_geo, read_geo
from chapkit_flows.data.panels import Panel, check_panel, horizon, split_last
from chapkit_flows.data.periods import (
    PeriodType,
    canonical_period,
    period_end,
    period_from_ordinal,
    period_ordinal,
    period_start,
    period_type_of,
)
from chapkit_flows.data.samples import Sample, SampleSpec, make_sample, write_sample
from chapkit_flows.data.sources import mask_uri, media_type_of, open_source
from chapkit_flows.data.tables import read_table, write_csv

__all__ = [
    "Panel",
    "PeriodType",
    "Sample",
    "SampleSpec",
    "canonical_period",
    "check_geo",
    "check_panel",
    "horizon",
    "make_sample",
    "mask_uri",
    "media_type_of",
    "open_source",
    "period_end",
    "period_from_ordinal",
    "period_ordinal",
    "period_start",
    "period_type_of",
    "read_geo",
    "read_table",
    "split_last",
    "write_csv",
    "write_sample",
]
