import pytest
import torch

from supsup_core.kernels.scoring import score_fused, score_plain


def logits_and_labels(num_outputs, num_images, spread=3.0):
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(num_outputs, num_images, generator=generator)
    return logits, torch.randint(0, num_outputs, (num_images,), generator=generator)


@pytest.mark.parametrize("form", [score_plain, score_fused])
def test_it_is_how_many_are_right_and_the_sum_of_their_cross_entropies(form):
    logits, labels = logits_and_labels(7, 200)
    probabilities = torch.softmax(logits.double(), dim=0)
    right, loss = form(logits, labels)
    assert right == sum(logits[:, n].argmax() == labels[n] for n in range(200))
    assert 0 < right < 200
    assert loss == pytest.approx(-float(probabilities[labels, range(200)].log().sum()), rel=1e-6)


@pytest.mark.parametrize("spread", [0.0, 3.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 1), (17, 33), (500, 61), (3, 0)])
def test_fused_score_equals_plain_score(shape, spread):
    drawn, labels = logits_and_labels(*shape, spread)
    for logits in (drawn, drawn.round()):  # after rounding, many logits are equal
        fused, plain = score_fused(logits, labels), score_plain(logits, labels)
        assert fused[0] == plain[0]
        assert fused[1] == pytest.approx(plain[1], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("form", [score_plain, score_fused])
def test_of_equal_logits_the_first_is_chosen(form):
    logits = torch.tensor([[1.0, 0.0, 2.0, -1.0], [1.0, 3.0, 1.0, -1.0], [1.0, 3.0, 2.0, -1.0]])
    assert form(logits, torch.tensor([0, 1, 0, 0]))[0] == 4
    assert form(logits, torch.tensor([1, 2, 2, 2]))[0] == 0


@pytest.mark.parametrize("spread", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("form", [score_plain, score_fused])
def test_logits_far_below_the_largest_lose_what_lies_between(form, spread):
    logits = torch.tensor([[0.0, -spread], [-spread, 0.0], [-spread, -spread]])
    assert form(logits, torch.tensor([0, 1])) == (2, 0.0)
    right, loss = form(logits, torch.tensor([1, 1]))
    assert right == 1
    assert loss == pytest.approx(spread)


@pytest.mark.parametrize("label", [-1, 17])
def test_label_beyond_the_outputs_is_refused_where_no_bounds_are_checked(label):
    logits, labels = logits_and_labels(17, 33)
    labels[2] = label
    with pytest.raises(ValueError, match=rf"labels must be in \[0, 17\), got \[.*{label}"):
        score_fused(logits, labels)
