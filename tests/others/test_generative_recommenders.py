"""docs/embedding.md beside generative-recommenders, where a copy of its repository can be imported: it is in
no registry, so `make test-others` skips these."""

import helpers_embedding
import pytest
import torch

import fastpop

TEMPERATURE = 0.05


@pytest.fixture(scope="module")
def page():
    return helpers_embedding.run("generative_recommenders")


def cosines(query, items):
    unit = torch.nn.functional.normalize
    return unit(query, dim=-1) @ unit(items, dim=-1).T


def test_the_loss_is_cross_entropy_of_its_logits_over_the_catalogue(page):
    given, items = page["given"], page["sampler"]._item_emb.weight
    wanted = torch.nn.functional.cross_entropy(
        (cosines(given["output_embeddings"], items[1:]) / TEMPERATURE + log_p_of(page)).transpose(1, 2),
        given["supervision_ids"] - 1,
        ignore_index=-1,
    )
    found, others = page["loss"](**given, **page["payloads"])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert others == {}


def test_without_log_p_it_is_that_of_its_own_loss_when_all_items_are_negatives(page):
    """Its own draws negatives: here each one of the catalogue once; it puts the positive's double at -5e4."""
    from generative_recommenders.research.modeling.sequential.losses.sampled_softmax import SampledSoftmaxLoss

    class Everything(page["LocalNegativesSampler"]):
        def forward(self, positive_ids, num_to_sample):
            ids = self._all_item_ids.expand(*positive_ids.shape, -1)
            return ids, self.normalize_embeddings(self._item_emb(ids))

    num_items, given = page["train"].num_items, dict(page["given"])
    emb = page["model"]._embedding_module._item_emb
    sampler = Everything(num_items, emb, page["all_ids"], True, 1e-6)
    few = {name: value[:8] for name, value in given.items() if name != "negatives_sampler"}
    few["supervision_embeddings"] = emb(few["supervision_ids"])  # after the last step of the page's loop
    own = SampledSoftmaxLoss(num_items, TEMPERATURE, page["model"])
    wanted, _ = own(**few, negatives_sampler=sampler)
    ours = page["LogPOutside"]()
    ours.head = page["FullSoftmaxLoss"].from_counts(
        page["counts"], first_item=1, scale=1 / TEMPERATURE, prior_weight=0.0
    )
    torch.testing.assert_close(ours(**few, negatives_sampler=sampler)[0], wanted, rtol=1e-5, atol=1e-5)


def test_its_ranking_holds_log_p_and_leaves_seen_items_out(page):
    score_UV = cosines(page["query"], page["sampler"]._item_emb.weight[1:]) / TEMPERATURE + log_p_of(page)
    score_UV = score_UV.detach()
    seen_UN = page["id_UN"]
    score_UV = torch.cat([torch.full((len(score_UV), 1), -torch.inf), score_UV], 1)
    score_UV.scatter_(1, seen_UN, -torch.inf)
    torch.testing.assert_close(page["score"], score_UV.topk(10).values, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(score_UV.gather(1, page["best_id"]), page["score"], rtol=1e-5, atol=1e-4)


def log_p_of(page):
    return torch.tensor(fastpop.popularity.PopularityPrior.from_counts(page["counts"]).log_prior_V).float()
