from pipelines.cli.index_words import summary_lines
from pipelines.indexing.report import IndexReport


def _lines(**values: object) -> list[str]:
    report = IndexReport(9, 6, 3, 1, 2.5, 2.0, 4, **values)  # type: ignore[arg-type]
    return summary_lines(report, "city")


def test_an_untroubled_run_takes_one_line():
    assert _lines() == [
        "9 images: 6 accepted (1 unchanged), 3 rejected, 2.5 s, 2.0 images/s, store version 4"
    ]


def test_each_loss_has_its_line():
    lines = _lines(
        rejected_by_reason={"missing": 2, "corrupt": 1},
        rejected_file="city/rejected.csv",
        nodes_lost=1,
        without_position=1,
        missing_from_source=2,
        notes_by_reason={"unknown_time": 4},
        notes_file="city/notes.csv",
        relearning_advice="the city has grown tenfold",
    )
    assert lines[1:] == [
        "  rejected 1: corrupt",
        "  rejected 2: missing",
        "  listed in city/rejected.csv",
        "  1 node lost; the work of lost nodes was done again",
        "  1 photo has no position",
        "  2 stored images are no longer in the source: remove their rows with --prune",
        "  noted 4: unknown_time",
        "  listed in city/notes.csv",
        "  the city has grown tenfold: run placeray relearn --store city",
    ]


def test_only_links_that_lead_outside_are_followed_with_the_flag():
    assert _lines(links_skipped=2)[1] == "  2 links were not followed"
    assert _lines(links_skipped=1, rejected_by_reason={"link_outside": 1})[-1] == (
        "  1 link was not followed: add --follow-links"
    )
    mixed = _lines(links_skipped=3, rejected_by_reason={"link_loop": 1}, notes_by_reason={"link_outside": 2})
    assert "  3 links were not followed: 2 with --follow-links" in mixed
