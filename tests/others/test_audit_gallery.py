"""docs/audit-gallery.md beside the packages: their audits are those that the page shows, and what was audited
are the scores that the package itself ranks by, up to a number for each context."""

import helpers_embedding
import numpy as np
import pytest
import torch
from helpers_gallery import check_as_recorded, gallery

USERS = np.arange(7)


def found(package):
    """By its name, what stood after each audit; each is as recorded."""
    helpers_embedding.want(package)
    names = gallery.run(package)
    assert names
    for name, after in names.items():
        check_as_recorded(name, after[name])
    return names


def same_but_for_a_constant(audited, own, rtol=1e-4):
    """[C, V] both: after each row's mean is taken out."""
    audited, own = (np.asarray(one, float) - np.mean(one, 1, keepdims=True) for one in (audited, own))
    np.testing.assert_allclose(audited, own, rtol=0, atol=rtol * np.abs(own).max())


def test_scikit_learn_reconstructs_by_what_is_audited():
    for names in found("sklearn").values():
        model = names["model"]
        query = model.transform(names["clicks"])[USERS]
        np.testing.assert_allclose(
            query @ model.components_, model.inverse_transform(query), rtol=1e-5, atol=1e-6
        )


def own_scores(model, clicks, user):
    """[V]: implicit's scores of all items, seen ones too."""
    ids, score = model.recommend(user, clicks[user], N=clicks.shape[1], filter_already_liked_items=False)
    score_V = np.zeros(clicks.shape[1])
    score_V[ids] = score
    return score_V


def test_implicit_ranks_by_what_is_audited_biases_included():
    names = found("implicit")
    clicks = names["als"]["clicks"]
    for name in ("als", "bpr", "lmf"):
        model = names[name]["model"]
        own = np.stack([own_scores(model, clicks, user) for user in USERS])
        np.testing.assert_allclose(
            model.user_factors[USERS] @ model.item_factors.T, own, rtol=1e-4, atol=1e-5
        )
    # The bias is a column beside a 1, so it is in the product.
    for name, column in (("bpr", -1), ("lmf", -2)):
        model = names[name]["model"]
        assert (model.user_factors[:, column] == 1).all()
        assert np.ptp(model.item_factors[:, column]) > 0
    knn = names["knn"]["model"]
    own = np.stack([own_scores(knn, clicks, user) for user in USERS])
    np.testing.assert_allclose(clicks[USERS].toarray() @ knn.similarity.toarray(), own, rtol=1e-4, atol=1e-5)


def test_lightfm_predicts_by_what_is_audited():
    names = found("lightfm")["warp"]
    model, bias, items = names["model"], names["bias"], names["items"]
    num_items = len(items)
    own = np.stack([model.predict(int(user), np.arange(num_items)) for user in USERS])
    audited = model.get_user_representations()[1][USERS] @ items.T + bias
    same_but_for_a_constant(audited, own)
    assert np.ptp(bias) > 0


def test_lenskit_scores_by_what_is_audited():
    names = found("lenskit")["biased_mf"]
    from lenskit.data import ItemList

    model, log = names["model"], names["log"]
    ids = model.items.ids()
    np.testing.assert_array_equal(names["in_order"], log.item_counts()[np.searchsorted(log.item_ids, ids)])
    users = [model.users.id(int(user)) for user in USERS]
    own = np.stack([model(user, ItemList(item_ids=ids)).scores() for user in users])
    audited = model.user_embeddings[USERS] @ model.item_embeddings.T + model.bias.item_biases
    same_but_for_a_constant(audited, own)


def test_rectools_ranks_by_what_is_audited():
    names = found("rectools")["hstu"]
    model, log, dataset = names["model"], names["log"], names["dataset"]
    ids = model.lightning_model.item_external_ids[1:]
    np.testing.assert_array_equal(names["in_order"], log.item_counts()[log.encode_items(ids)])
    histories = model.data_preparator.transform_dataset_u2i(dataset, log.user_ids, names["now"].copy())
    in_order = histories.user_id_map.external_ids
    audited = (names["query"][USERS] @ names["items"][1:].T).numpy()
    users = in_order[USERS]
    shown = model.recommend(users, dataset, k=len(ids), filter_viewed=False, context=names["now"].copy())
    table = shown.pivot(index="user_id", columns="item_id", values="score").loc[users, ids]
    np.testing.assert_allclose(audited, table.to_numpy(), rtol=1e-4, atol=1e-5)


def test_replay_s_logits_are_what_is_audited():
    names = found("replay")["replay_sasrec"]
    with torch.no_grad():
        own = names["model"](**names["history"])["logits"]
    torch.testing.assert_close(names["query"] @ names["items"].T, own, rtol=1e-5, atol=1e-5)


def test_a_language_model_s_logits_and_loss_are_what_is_audited():
    names = found("transformers")["gpt2"]
    model, rows = names["model"], names["held_out"]
    with torch.no_grad():
        own = model(rows).logits[:, :-1].flatten(0, 1)
    torch.testing.assert_close(names["hidden"] @ names["head"].T, own, rtol=1e-5, atol=1e-4)
    nll = torch.nn.functional.cross_entropy(own, names["target"])
    assert names["gpt2"].nll == pytest.approx(float(nll), rel=1e-5)
    assert names["gpt2"].nll < 0.9 * np.log(1000)


def test_faiss_searches_what_is_audited():
    names = found("faiss")["quantised"]
    score, ids = names["index"].search(names["query"][USERS], names["index"].ntotal)
    own = np.take_along_axis(score, np.argsort(ids, 1), 1)
    np.testing.assert_allclose(names["query"][USERS] @ names["served"].T, own, rtol=1e-4, atol=1e-5)
    assert np.abs(names["served"] - names["items"]).max() > 0  # it is the index that was asked
