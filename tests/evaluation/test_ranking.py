"""`evaluate` against a slow oracle written from the definitions, sklearn, and its own properties."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from fastpop.data.cases import Cases
from fastpop.evaluation import DotScores, evaluate, item_groups


def make_cases(histories, targets, num_items):
    def csr(lists):
        flat = [i for row in lists for i in row]
        return np.cumsum([0, *map(len, lists)]), np.array(flat, dtype=np.int64)

    return Cases(np.arange(len(targets)), *csr(histories), *csr(targets), num_items)


def random_problem(seed, num_items=12, num_cases=9, levels=4, repeats=True):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, levels, (num_cases, num_items)).astype(float)
    histories = [rng.integers(0, num_items, rng.integers(0, 6)).tolist() for _ in range(num_cases)]
    targets = [rng.choice(num_items, rng.integers(1, 4), replace=False).tolist() for _ in range(num_cases)]
    return score, histories, targets, rng.integers(0, 9, num_items)


def streamed(score, dtype=torch.float64):
    """The same scores as dot products, exact: with the unit vectors as items."""
    score = torch.as_tensor(score)
    removed = (score == -torch.inf).all(0)
    bias = torch.where(removed, -torch.inf, 0.0)
    return DotScores(
        torch.where(removed, 0, score).to(dtype) / 2, torch.eye(len(bias), dtype=dtype), bias, 2.0
    )


FORMS = {
    "dense": lambda score: lambda rows: score[rows],
    "streamed": streamed,
    "streamed, float32": lambda score: streamed(score, torch.float32),
}


def oracle(score_V, history, target, k, mask_seen, counts, pool=None):
    """One case, item by item, in the words of docs/metrics.md."""
    num_items = len(score_V)
    relevant = set(target)
    rankable = set(range(num_items)) if pool is None else set(pool) | relevant
    if mask_seen:
        rankable -= set(history) - relevant
    other = rankable - relevant
    ahead = sorted(
        sum(score_V[i] > score_V[t] for i in other) + sum(score_V[i] == score_V[t] for i in other) / 2
        for t in relevant
    )
    position = [a + j for j, a in enumerate(ahead, 1)]
    hits = [p for p in position if p < k + 1]
    shown = sorted(rankable, key=lambda i: (-score_V[i], i))[:k]
    tail = item_groups(counts) == 2
    p = (counts + 1) / (counts.sum() + num_items)
    z = np.exp(score_V).sum()
    return {
        f"hr@{k}": float(bool(hits)),
        f"recall@{k}": len(hits) / len(relevant),
        f"precision@{k}": len(hits) / k,
        f"ndcg@{k}": sum(1 / math.log2(1 + p) for p in hits)
        / sum(1 / math.log2(1 + j) for j in range(1, min(k, len(relevant)) + 1)),
        f"mrr@{k}": 1 / min(position) if hits else 0.0,
        f"map@{k}": sum((j + 1) / p for j, p in enumerate(position) if p < k + 1) / min(k, len(relevant)),
        "rank": min(position),
        "auc": np.mean(
            [[(score_V[t] > score_V[i]) + (score_V[t] == score_V[i]) / 2 for i in other] for t in relevant]
        )
        if other
        else np.nan,
        "nll": np.mean([math.log(z) - score_V[t] for t in target]),
        f"arp@{k}": np.mean([counts[i] for i in shown]),
        f"aplt@{k}": np.mean([tail[i] for i in shown]),
        f"novelty@{k}": np.mean([-math.log2(p[i]) for i in shown]),
    }


@given(
    st.integers(0, 10**6), st.booleans(), st.integers(1, 12), st.integers(1, 10), st.sampled_from(list(FORMS))
)
@settings(max_examples=150, deadline=None)
def test_every_metric_equals_the_definition(seed, mask_seen, k, chunk_size, form):
    score, histories, targets, counts = random_problem(seed)
    if counts.sum() == 0:
        counts[0] = 1
    got = evaluate(
        FORMS[form](score),
        make_cases(histories, targets, 12),
        counts=counts,
        ks=[k],
        mask_seen=mask_seen,
        chunk_size=chunk_size,
    )
    for c in range(len(targets)):
        want = oracle(score[c], histories[c], targets[c], k, mask_seen, counts)
        for name, value in want.items():
            exact = 1e-6 if name == "nll" and form == "streamed, float32" else 1e-12
            assert got.per_case[name][c] == pytest.approx(value, abs=exact, nan_ok=True), name


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_candidate_lists_equal_the_definition(seed):
    score, histories, targets, counts = random_problem(seed)
    counts[0] += 1
    rng = np.random.default_rng(seed)
    pools = [rng.choice(12, rng.integers(3, 12), replace=False).tolist() for _ in targets]
    offsets = np.cumsum([0, *map(len, pools)])
    got = evaluate(
        lambda rows: torch.tensor(score[rows]),
        make_cases(histories, targets, 12),
        counts=counts,
        ks=[3],
        candidates=(offsets, np.concatenate(pools)),
    )
    assert got.rule.startswith("ranking of the given candidates and the targets; seen items not")
    for c in range(len(targets)):
        want = oracle(score[c], histories[c], targets[c], 3, False, counts, pools[c])
        for name, value in want.items():
            assert got.per_case[name][c] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_streamed_scores_with_candidate_lists_are_written_down():
    score, histories, targets, counts = random_problem(3)
    candidates = np.arange(10), np.arange(9)
    got, want = (
        evaluate(
            FORMS[form](score),
            make_cases(histories, targets, 12),
            ks=[3],
            counts=counts,
            candidates=candidates,
        )
        for form in ("streamed", "dense")
    )
    assert got.metrics == pytest.approx(want.metrics, nan_ok=True)
    assert "pooled_auc" in got.metrics


def test_streaming_changes_no_number_of_an_evaluation():
    """Real scores, many cases: every metric, list and case, at a fraction of the memory."""
    rng = np.random.default_rng(0)
    query, items = (torch.from_numpy(rng.normal(size=(n, 16))) for n in (300, 500))
    bias = torch.from_numpy(rng.normal(size=500))
    histories = [rng.integers(0, 500, rng.integers(0, 30)).tolist() for _ in range(300)]
    targets = [rng.integers(0, 500, rng.integers(1, 4)).tolist() for _ in range(300)]
    cases, counts = make_cases(histories, targets, 500), rng.integers(0, 50, 500)
    scores = DotScores(query, items, bias, 0.7)
    for mask_seen in (True, False):
        options = {"counts": counts, "ks": [1, 10], "mask_seen": mask_seen, "chunk_size": 77}
        got, want = evaluate(scores, cases, **options), evaluate(scores.__call__, cases, **options)
        assert got.metrics == pytest.approx(want.metrics, rel=1e-12, nan_ok=True)
        assert got.rule == want.rule
        for name, value in want.per_case.items():
            np.testing.assert_allclose(got.per_case[name], value, rtol=1e-12, err_msg=name)
        assert all((got.exposure[k] == want.exposure[k]).all() for k in (1, 10))


def test_many_targets_take_the_sorting_path_and_agree():
    """More than 16 targets a case on average: positions come from one sort a row."""
    rng = np.random.default_rng(3)
    score = rng.integers(0, 9, (5, 60)).astype(float)
    score[2, :7] = -np.inf
    histories = [rng.integers(0, 60, 8).tolist() for _ in range(5)]
    targets = [rng.choice(60, n, replace=False).tolist() for n in (20, 30, 25, 55, 1)]
    counts = rng.integers(1, 9, 60)
    cases = make_cases(histories, targets, 60)
    got = evaluate(lambda rows: score[rows], cases, counts=counts, ks=[10], logits=False)
    for c in range(5):
        want = oracle(score[c], histories[c], targets[c], 10, True, counts)
        for name in ("ndcg@10", "map@10", "rank", "auc", "recall@10"):
            assert got.per_case[name][c] == pytest.approx(want[name], abs=1e-12), (c, name)


def test_ndcg_and_auc_agree_with_sklearn():
    rng = np.random.default_rng(0)
    score = rng.normal(size=(40, 50))  # no ties: sklearn averages over tied orders, we do not
    targets = [rng.choice(50, rng.integers(1, 6), replace=False).tolist() for _ in range(40)]
    got = evaluate(lambda rows: score[rows], make_cases([[]] * 40, targets, 50), ks=[5, 50])
    relevant = np.zeros((40, 50))
    for c, row in enumerate(targets):
        relevant[c, row] = 1
    for k in (5, 50):
        want = [ndcg_score(relevant[c : c + 1], score[c : c + 1], k=k) for c in range(40)]
        np.testing.assert_allclose(got.per_case[f"ndcg@{k}"], want, atol=1e-12)
    tied = np.round(score)
    got = evaluate(lambda rows: tied[rows], make_cases([[]] * 40, targets, 50))
    want = [roc_auc_score(relevant[c], tied[c]) for c in range(40)]
    np.testing.assert_allclose(got.per_case["auc"], want, atol=1e-12)


def test_rank_is_one_plus_greater_plus_half_the_ties():
    score = np.array([[5.0, 3, 3, 3, 1], [0, 0, 0, 0, 0]])
    cases = make_cases([[0], [1]], [[2], [2]], 5)
    masked = evaluate(lambda rows: score[rows], cases, ks=[2])
    assert masked.per_case["rank"].tolist() == [2.0, 2.5]
    assert masked.per_case["hr@2"].tolist() == [1.0, 1.0]
    at_one = evaluate(lambda rows: score[rows], cases, ks=[1])
    assert at_one.per_case["hr@1"].tolist() == [0.0, 0.0]
    unmasked = evaluate(lambda rows: score[rows], cases, ks=[2], mask_seen=False)
    assert unmasked.per_case["rank"].tolist() == [3.0, 3.0]


def test_a_target_in_the_history_stays_rankable_and_repeats_are_split():
    score = np.array([[3.0, 2, 1, 0], [3.0, 2, 1, 0]])
    cases = make_cases([[1, 0], [0]], [[1], [1]], 4)
    got = evaluate(lambda rows: score[rows], cases, ks=[1])
    assert got.per_case["rank"].tolist() == [1.0, 1.0]
    assert "recall_repeat@1" not in got.metrics
    got = evaluate(lambda rows: score[rows], cases, ks=[1, 2], mask_seen=False)
    assert got.per_case["recall_repeat@2"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert got.per_case["recall_new@1"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    assert got.metrics["target_share_repeat"] == 0.5
    lse = math.log(sum(map(math.exp, range(4))))
    assert got.metrics["nll_repeat"] == pytest.approx(lse - 2)
    assert got.metrics["target_share_new"] == 0.5
    assert got.events["nll_new"].tolist() == [0, 1]
    assert got.per_case["nll_new"].tolist() == pytest.approx([np.nan, lse - 2], nan_ok=True)
    assert got.metrics["ndcg_repeat@2"] == pytest.approx(1 / math.log2(3))


def test_nll_counts_every_event_over_the_unmasked_catalogue():
    score = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    cases = make_cases([[0], [2]], [[1, 0, 2], [2]], 3)
    got = evaluate(lambda rows: score[rows], cases, ks=[1])
    want = -np.log([0.25, 0.5, 0.25, 0.8]).mean()
    assert got.metrics["nll"] == pytest.approx(want, abs=1e-12)
    assert got.metrics["perplexity"] == pytest.approx(math.exp(want))
    assert "nll" not in evaluate(lambda rows: score[rows], cases, ks=[1], logits=False).metrics


@pytest.mark.parametrize("form", FORMS)
def test_a_target_ruled_out_by_the_scores_has_infinite_nll_and_no_neighbour_is_shown(form):
    score = np.array([[0.0, -np.inf, -np.inf, -np.inf]])
    got = evaluate(FORMS[form](score), make_cases([[]], [[1]], 4), ks=[3], counts=[1] * 4)
    assert got.metrics["nll"] == np.inf
    assert got.per_case["rank"][0] == 3.0  # item 0 greater, two ties
    assert got.exposure[3].tolist() == [1, 0, 0, 0]
    assert got.metrics["coverage@3"] == 0.25


def test_head_mid_tail_split_the_targets():
    counts = np.array([10, 6, 2, 1, 1, 0])  # of 20: 10 is head, 6 mid, the rest tail
    assert item_groups(counts).tolist() == [0, 1, 2, 2, 2, 2]
    score = np.tile(np.arange(6.0)[::-1], (3, 1))
    got = evaluate(
        lambda rows: score[rows], make_cases([[]] * 3, [[0], [1, 3], [5]], 6), counts=counts, ks=[1, 2]
    )
    assert got.metrics["recall_head@1"] == 1.0
    # Without the other target of its case, item 1 stands second and item 3 third.
    assert got.per_case["recall_mid@2"].tolist() == pytest.approx([np.nan, 1, np.nan], nan_ok=True)
    assert got.per_case["recall_tail@2"].tolist() == pytest.approx([np.nan, 0, 0], nan_ok=True)
    assert got.metrics["target_share_tail"] == 0.5


def test_weights_are_copies_of_cases():
    score, histories, targets, counts = random_problem(5)
    copies = [0, 1, 2, 1, 1, 3, 0, 1, 1]
    index = np.repeat(np.arange(9), copies)
    cases = make_cases(histories, targets, 12)
    weighted = evaluate(lambda rows: score[rows], cases, counts=counts, weight=copies, ks=[2, 30])
    repeated = evaluate(lambda rows: score[index][rows], cases.take(index), counts=counts, ks=[2, 30])
    for name in weighted.per_case:  # k = 30 is more than the 12 items there are
        assert weighted.metrics[name] == pytest.approx(repeated.metrics[name], nan_ok=True), name


def test_chunks_never_exceed_the_memory_limit_and_change_nothing():
    score, histories, targets, counts = random_problem(6)
    cases, asked = make_cases(histories, targets, 12), []

    def watched(rows):
        asked.append(rows.stop - rows.start)
        return score[rows]

    small = evaluate(watched, cases, counts=counts, memory_limit=24 * 12 * 2)
    assert max(asked) == 2
    whole = evaluate(lambda rows: score[rows], cases, counts=counts)
    assert small.metrics == pytest.approx(whole.metrics, nan_ok=True)


def test_table_and_dict_are_plain_and_narrow():
    score, histories, targets, counts = random_problem(7)
    got = evaluate(
        lambda rows: score[rows], make_cases(histories, targets, 12), counts=counts, mask_seen=False
    )
    table = got.table()
    assert max(map(len, table.splitlines())) <= 80
    assert "popularity_correlation" in table
    assert "seen items not masked" in table.replace("\n", " ")
    assert json.loads(json.dumps(got.to_dict()))["num_cases"] == 9
    assert "\nrecall  " in table
    single = evaluate(lambda rows: score[rows], make_cases(histories, [one[:1] for one in targets], 12))
    assert "\nrecall  " not in single.table()  # it is the hit rate, which stands above
    assert single.metrics["recall@10"] == single.metrics["hr@10"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"query": torch.tensor([[0.0, 0], [0, torch.nan]])},
            ValueError,
            "query: expected finite .* in case 1",
        ),
        (
            {"query": torch.zeros(3, 2)},
            ValueError,
            r"score.query: expected shape \[2, D\]; got float32 \[3, 2\]",
        ),
        ({"items": torch.zeros(4, 2)}, ValueError, r"score.items: expected shape \[3, D\]"),
        ({"items": torch.zeros(3, 5)}, ValueError, r"items: expected shape \[V, 2\]"),
        (
            {"items": torch.zeros(3, 2, dtype=torch.int64)},
            TypeError,
            "items: expected a floating point torch tensor",
        ),
        ({"items": np.zeros((3, 2), dtype="U1")}, TypeError, "items: expected a 2-d array of real numbers"),
        ({"items": torch.full((3, 2), torch.nan)}, ValueError, "score: .*got nan in case 0"),
        ({"query": torch.zeros(2, 2).to_sparse()}, TypeError, "query: expected a dense tensor"),
        ({"items": torch.zeros(3, 2, device="meta")}, ValueError, "items: expected a tensor on cpu or cuda"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias: expected shape \[3\]"),
        ({"bias": torch.tensor([0, 0, torch.inf])}, ValueError, "score: .*got inf in case 0"),
        ({"scale": torch.inf}, ValueError, "scale: expected a finite number"),
    ],
)
def test_bad_dot_scores_are_named(change, error, message):
    with pytest.raises(error, match=message):
        evaluate(DotScores(**{"query": torch.zeros(2, 2), "items": torch.zeros(3, 2)} | change), CASES)


def test_a_score_that_is_no_number_is_named_by_its_case_in_any_chunk():
    query = torch.zeros(6, 2)
    query[4] = 3e38
    scores = DotScores(query, torch.tensor([[3e38, -3e38], [0, 0], [0, 0]]))
    for chunk_size in (1, 2, 6):
        with pytest.raises(ValueError, match=r"got (nan|inf) in case 4"):
            evaluate(scores, make_cases([[]] * 6, [[1]] * 6, 3), chunk_size=chunk_size)


def test_a_chunk_without_targets_is_legal_beside_candidates():
    score = np.arange(9.0).reshape(3, 3)
    candidates = np.arange(0, 10, 3), np.tile(np.arange(3), 3)
    found = [
        evaluate(
            lambda rows: score[rows],
            make_cases([[]] * 3, [[0], [], [2]], 3),
            ks=[1],
            candidates=candidates,
            chunk_size=size,
        ).metrics
        for size in (1, 3)
    ]
    assert found[0] == pytest.approx(found[1], nan_ok=True)


CASES = make_cases([[0], [1]], [[1], [2]], 3)
SCORE = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("score", "change", "error", "words"),
    [
        (np.array([[0, 0, 0], [0, np.nan, 0]]), {}, ValueError, "got nan in case 1"),
        (np.array([[0, 0, 0], [0, np.inf, 0]]), {"chunk_size": 1}, ValueError, "got inf in case 1"),
        (np.zeros((2, 4)), {}, ValueError, r"score\(slice\): expected shape \[2, 3\]"),
        ([[0]], {}, TypeError, r"score\(slice\): expected a torch tensor or numpy"),
        (SCORE, {"ks": [0]}, ValueError, "ks: expected an integer >= 1; got 0"),
        (SCORE, {"ks": [1.5]}, TypeError, "ks: expected an integer; got float"),
        (SCORE, {"ks": []}, ValueError, "ks: expected at least one k"),
        (SCORE, {"counts": [1, 2]}, ValueError, r"counts: expected shape \[3\]"),
        (SCORE, {"counts": [1, -2, 3]}, ValueError, "counts: expected numbers >= 0; got -2 at"),
        (SCORE, {"counts": [0, 0, 0]}, ValueError, "at least one count above 0"),
        (SCORE, {"weight": [1, -1]}, ValueError, "weight: expected numbers >= 0"),
        (SCORE, {"chunk_size": 0}, ValueError, "chunk_size: expected an integer >= 1"),
        (SCORE, {"candidates": ([0, 1, 2], [0, 7])}, ValueError, r"ids in \[0, 3\); got 7"),
    ],
)
def test_bad_input_is_one_clear_error(score, change, error, words):
    def give(rows):
        return score[rows] if isinstance(score, np.ndarray) and len(score[0]) == 3 else score

    with pytest.raises(error, match=words):
        evaluate(give, CASES, **{"ks": [1], **change})


def test_a_case_without_target_is_named():
    with pytest.raises(ValueError, match="got none in case 1"):
        evaluate(lambda rows: SCORE[rows], make_cases([[], []], [[1], []], 3), ks=[1])


def test_a_constant_score_gets_the_middle_and_not_chance():
    """Mid-ranks are a convention: rank and AUC of chance, metrics at k of the middle of the list."""
    cases = Cases(np.arange(30), np.zeros(31, int), np.empty(0, int), np.arange(31), np.arange(30), 30)
    found = evaluate(lambda part: np.zeros((len(range(30)[part]), 30)), cases, ks=(10, 15, 16)).metrics
    assert found["rank"] == 15.5
    assert found["auc"] == 0.5
    for k, hit in ((10, 0), (15, 1), (16, 1)):  # 15.5 < 15 + 1: a tie that straddles the edge is a hit
        assert found[f"hr@{k}"] == hit
    assert found["ndcg@10"] == 0
