import pytest

from kohakuriver.models.abilities import LACKS, Ability
from kohakuriver.models.resources import Demand
from kohakuriver.models.spec.targets import Target
from kohakuriver.scheduling.explain import FITS, explain, never_fits, refusal
from kohakuriver.scheduling.nodes import NodeTable
from support.scheduling.values import FLYING, SHARED, node, on


@pytest.fixture
def table() -> NodeTable:
    table = NodeTable(
        [
            node("busy", cores=4, gpus=2),
            node("apart", cores=8, closed_reason="is offline"),
            node("bare", cores=4, offers=frozenset()),
            node("free", cores=4),
        ]
    )
    table.take("busy", on("busy", gpus=(0,), cores=3))
    return table


def test_every_node_gets_its_reason(table: NodeTable) -> None:
    assert explain(Demand(cores=2, needs=SHARED), table) == [
        ("apart", "is offline"),
        ("bare", "has no shared storage, which the task's environment is kept in"),
        ("busy", "2 cores wanted, 1 of 4 free"),
        ("free", FITS),
    ]


def test_what_a_node_lacks_is_said_in_its_own_words_where_it_gave_any() -> None:
    none = frozenset[Ability]()
    lacking = {FLYING: "has no wings", Ability.SHARED_STORAGE: "has a share that hangs"}
    table = NodeTable([node("a"), node("b", offers=none, lacks=lacking), node("c", offers=none)])
    need = Demand(needs=SHARED | {FLYING})
    both = f"has no wings, and {LACKS[Ability.SHARED_STORAGE]}"
    assert explain(need, table) == [
        ("a", "has no wings"),
        ("b", "has no wings, and has a share that hangs"),
        ("c", both),
    ]
    sentence = never_fits(need, table) or ""
    assert f"a has no wings; b has no wings, and has a share that hangs; c {both}" in sentence
    assert explain(Demand(needs=SHARED), table)[0] == ("a", FITS)


def test_each_ability_has_a_sentence_for_nodes_that_say_nothing() -> None:
    assert set(LACKS) == set(Ability)


def test_a_target_is_the_only_node_explained(table: NodeTable) -> None:
    assert explain(on("busy", gpus=(0,)), table) == [("busy", "GPU 0 in use")]
    assert explain(on("gone"), table) == [("gone", "is not known")]


def test_a_task_for_which_an_empty_open_node_has_room_is_only_waiting(table: NodeTable) -> None:
    assert never_fits(Demand(cores=8), table) is None
    assert never_fits(on("busy", gpus=(0,), cores=4), table) is None


def test_a_task_that_no_node_could_hold_says_what_each_lacks(table: NodeTable) -> None:
    sentence = never_fits(Demand(cores=9, needs=SHARED), table)
    assert sentence is not None
    for part in (
        "can ever hold it",
        "apart 9 cores wanted, 8 of 8",
        "bare has no shared storage",
        "busy 9",
        "free 9",
    ):
        assert part in sentence


def test_a_target_that_is_too_small_says_so_whatever_other_nodes_have(table: NodeTable) -> None:
    assert "5 cores wanted" in (never_fits(on("free", cores=5), table) or "")
    assert "gone is not known" in (never_fits(on("gone"), table) or "")


def test_an_empty_cluster_says_that_it_is_empty() -> None:
    assert never_fits(Demand(), NodeTable()) == "no node can hold it yet: the cluster has no nodes"


def test_a_large_cluster_does_not_make_a_long_sentence() -> None:
    table = NodeTable([node(f"n{number:03}") for number in range(300)])
    sentence = never_fits(Demand(cores=99), table)
    assert sentence is not None
    assert "and 295 more nodes" in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (on("gone"), "there is no node 'gone'; the nodes are apart, bare, busy, free"),
        (on("busy", 2), "node busy has no NUMA node 2; it has 0, 1"),
        (on("busy", gpus=(0, 5, 3)), "node busy has no GPU 3, 5; it has 0, 1"),
        (on("free", gpus=(0,)), "node free has no GPU 0; it has none"),
        (Demand(target=Target("free", None, (0,))), "node free has no GPU 0"),
        (Demand(gpus=(0,)), "name it in the target"),
    ],
)
def test_a_place_that_does_not_exist_is_refused(table: NodeTable, demand: Demand, words: str) -> None:
    assert words in (refusal(demand, table) or "")


@pytest.mark.parametrize("demand", [Demand(cores=99), on("busy", 1, (0, 1), cores=99), on("apart")])
def test_a_place_that_exists_is_not_refused_for_being_full_or_small(table: NodeTable, demand: Demand) -> None:
    assert refusal(demand, table) is None


def test_a_node_without_a_numa_list_has_none() -> None:
    table = NodeTable([node("n1", cores=1)])
    assert "it has 0" in (refusal(on("n1", 1), table) or "")
    assert "no nodes yet" in (refusal(on("n1"), NodeTable()) or "")
