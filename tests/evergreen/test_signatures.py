"""Names of the raw signature's inputs."""

from __future__ import annotations

from evergreen import signatures


def test_legal_names_stay_and_others_are_told_apart() -> None:
    names = signatures.input_names(["beta 1", "beta_1", "beta-1", "2nd", "_x", "Größe", "hour"])
    assert names == {
        "beta_1": "beta_1",
        "hour": "hour",
        "beta 1": "beta_1_2",
        "beta-1": "beta_1_3",
        "2nd": "column_2nd",
        "_x": "column_x",
        "Größe": "Gr__e",
    }


def test_the_names_travel_with_the_model(tmp_path):
    assert signatures.read_inputs(str(tmp_path)) is None
    signatures.write_inputs(str(tmp_path), {"trip miles": "trip_miles"})
    assert signatures.read_inputs(str(tmp_path)) == {"trip miles": "trip_miles"}
