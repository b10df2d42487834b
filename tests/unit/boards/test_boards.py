import pytest

from fleetd.boards import GENERIC, UnknownBoardError, covered, find, named, operators, profiles
from fleetd.bundles import tflite_ops

ARCHS = {
    "OMVRT1060 32768 SDRAM": "rt1062",
    "OMV4 H7 1024": "h7",
    "OMV4P H7 32768 SDRAM": "h7-plus",
    "OPENMVPT 65536 SDRAM": "pure-thermal",
    "OpenMV N6": "n6",
    "OPENMV AE3": "ae3",
    "NICLAV H7 1024": "nicla-vision",
    "PORTENTA H7 8192 SDRAM": "portenta-h7",
    "GIGA H7 8192 SDRAM": "giga-r1",
    "OMV3 F7 512": "m7",
}


@pytest.mark.parametrize(("arch", "key"), ARCHS.items())
def test_every_board_is_found_by_what_it_reports(arch: str, key: str) -> None:
    assert find(arch).key == key


def test_every_profile_is_reachable_and_no_two_share_a_prefix() -> None:
    assert {profile.key for profile in profiles()} == set(ARCHS.values())
    for one in profiles():
        assert [other.key for other in profiles() if one.arch.startswith(other.arch)] == [one.key]


@pytest.mark.parametrize("arch", ["", "OMV9 X1", "omvrt1060"])
def test_an_unknown_board_gets_the_generic_profile(arch: str) -> None:
    assert find(arch) is GENERIC


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("RT1062", "rt1062"),
        ("h7 plus", "h7-plus"),
        ("H7 R2", "h7"),
        ("OMVRT1060", "rt1062"),
        ("nicla", "nicla-vision"),
    ],
)
def test_people_may_write_board_names_their_way(text: str, key: str) -> None:
    assert named(text).key == key


@pytest.mark.parametrize("text", ["", "H8", "rt"])
def test_a_name_that_means_no_board_is_refused_with_the_list_of_those_that_exist(text: str) -> None:
    with pytest.raises(UnknownBoardError, match=r"Known boards: ae3, .*rt1062"):
        named(text)


def test_a_manifest_prefix_covers_every_board_it_lets_in() -> None:
    assert {profile.key for profile in covered(["OMV4"])} == {"h7", "h7-plus"}
    assert {profile.key for profile in covered(["OMVRT1060 32768", "OMV3"])} == {"rt1062", "m7"}
    assert covered(["*"]) == (GENERIC,)
    assert {profile.key for profile in covered(["OMVRT1060", "DESK"])} == {"rt1062", "generic"}


def test_the_operator_list_uses_names_of_the_schema() -> None:
    assert operators().builtin <= set(tflite_ops.NAMES)
    assert {"CONV_2D", "SOFTMAX", "UNIDIRECTIONAL_SEQUENCE_LSTM"} <= operators().builtin
    assert not {"POW", "TOPK_V2", "GELU", "CONV_3D", "SELECT", "REDUCE_MIN"} & operators().builtin


def test_a_board_without_room_on_flash_has_a_card_slot() -> None:
    for profile in profiles():
        assert profile.slots, profile.key
        assert profile.memory is not None
        assert all(
            slot.bytes % 4096 == 0 and (slot.most or slot.bytes) >= slot.bytes for slot in profile.slots
        )
    assert [slot.backend for slot in named("h7").slots] == ["sdcard"]
