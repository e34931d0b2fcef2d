"""CloudSegmentor: its loss, its scores for points, votes, and the weights it starts from."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from timm.models import register_model
from torch import nn

from visionpe.detection import CloudSegmentor
from visionpe.sparse import Voxels

CLASSES = 4
TINY = {
    "embed_dims": (8, 16),
    "depths": (1, 1),
    "num_heads": (2, 2),
    "window_size": (3, 3),
    "in_chans": 6,
    "signals": "XYZ_RGB",
}


class Rowwise(nn.Module):
    """Scores from features alone, so that what they should be is known."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(6, num_classes)
        self.batches = []

    def forward(self, voxels):
        self.batches.append(voxels.checked())
        return self.head(voxels.features)


@register_model
def rowwise_voxels(pretrained=False, num_classes=4, **kwargs):
    """A stand-in for a model over voxels."""
    return Rowwise(num_classes)


def cloud(rows, number=0):
    coords = torch.randperm(1000)[:rows, None] + torch.zeros(rows, 3, dtype=torch.long)
    places = coords + torch.rand(rows, 3)
    signals = torch.cat((places, torch.rand(rows, 3)), 1)
    return Voxels(torch.randn(rows, 6), torch.cat((torch.full((rows, 1), number), coords), 1), signals)


def sample(labels, inverse=None):
    out = BaseDataElement()
    out.gt_sem_seg = BaseDataElement(data=labels)
    if inverse is not None:
        out.inverse = BaseDataElement(data=inverse)
    return out


def build(name="rowwise_voxels", **kwargs):
    return MODELS.build({"type": "CloudSegmentor", "model_name": name, "num_classes": CLASSES, **kwargs})


def test_loss_is_the_mean_over_counted_voxels():
    model = build()
    clouds, labels = [cloud(5), cloud(7)], [torch.randint(0, CLASSES, (n,)) for n in (5, 7)]
    labels[1][2:5] = 255
    data = model.data_preprocessor({"inputs": clouds, "data_samples": [sample(x) for x in labels]}, True)
    losses = model(**data, mode="loss")
    batch = model.model.batches[-1]
    assert batch.cloud.tolist() == [0] * 5 + [1] * 7
    together, counted = torch.cat(labels), torch.cat(labels) != 255
    scores = model.model.head(torch.cat([c.features for c in clouds]))
    torch.testing.assert_close(losses["loss"], F.cross_entropy(scores[counted], together[counted]))
    right = (scores.argmax(1) == together)[counted].float().mean()
    torch.testing.assert_close(losses["accuracy"], 100 * right)


def test_classes_weigh_differently():
    weights, labels, voxels = [1.0, 2.0, 0.5, 0.0], torch.tensor([0, 1, 1, 2, 3]), cloud(5)
    model = build(class_weight=weights)
    loss = model(voxels, [sample(labels)], mode="loss")["loss"]
    each = F.cross_entropy(model.model.head(voxels.features), labels, reduction="none")
    weights = torch.tensor(weights)[labels]
    torch.testing.assert_close(loss, (each * weights).sum() / weights.sum())
    assert "class_weight" not in model.state_dict()
    with pytest.raises(ValueError, match="class_weight has 3 numbers for num_classes=4"):
        build(class_weight=[1, 2, 3])


def test_lovasz_beside_the_cross_entropy():
    """By its definition: errors of a class, the largest first, weigh by what each adds to the Jaccard loss."""
    model, voxels, labels = build(lovasz=0.5), cloud(9), torch.tensor([0, 1, 1, 3, 3, 0, 255, 1, 3])
    losses = model(voxels, [sample(labels)], mode="loss")
    shares = model.model.head(voxels.features).softmax(1)[labels != 255]
    labels, wanted = labels[labels != 255], []
    for c in (0, 1, 3):
        errors = torch.where(labels == c, 1 - shares[:, c], shares[:, c])
        order, truth, total, before = errors.argsort(descending=True), set((labels == c).nonzero()[:, 0].tolist()), 0, 0
        for n in range(1, len(order) + 1):
            wrong = set(order[:n].tolist())
            jaccard = 1 - len(truth - wrong) / len(truth | wrong)
            total, before = total + errors[order[n - 1]] * (jaccard - before), jaccard
        wanted.append(total)
    torch.testing.assert_close(losses["loss_lovasz"], 0.5 * torch.stack(wanted).mean())
    plain = build()
    plain.load_state_dict(model.state_dict())
    given = torch.tensor([0, 1, 1, 3, 3, 0, 255, 1, 3])
    torch.testing.assert_close(losses["loss_ce"], plain(voxels, [sample(given)], mode="loss")["loss"])
    nothing = model(voxels, [sample(torch.full((9,), 255))], mode="loss")
    assert nothing["loss"] == 0


def test_no_label_no_loss():
    model = build(ignore_index=-100)
    loss = model(cloud(5), [sample(torch.full((5,), -100))], mode="loss")["loss"]
    loss.backward()
    assert loss == 0
    assert not model.model.head.weight.grad.any()


def test_scores_go_back_to_the_points():
    model = build().eval()
    clouds = [cloud(5), cloud(7)]
    inverses = [torch.randint(0, n, (1, 20)) for n in (5, 7)]
    samples = [sample(torch.zeros(20).long(), inverse) for inverse in inverses]
    out = model.val_step({"inputs": clouds, "data_samples": samples})
    for given, inverse, result in zip(clouds, inverses, out):
        expected = model.model.head(given.features)[inverse[0]]
        torch.testing.assert_close(result.seg_logits.data, expected)
        assert torch.equal(result.pred_sem_seg.data, expected.argmax(1))
    # One cloud at a time: their number must not decide about memory.
    assert [len(batch) for batch in model.model.batches] == [5, 7]
    for a, b in zip(out, model(Voxels.collate(clouds), samples, mode="predict")):
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data)
    torch.testing.assert_close(model(clouds), model(Voxels.collate(clouds)))


@pytest.mark.parametrize("votes", ["scores", "softmax"])
def test_votes_are_means_of_normalised_raw_scores_or_shares(votes):
    model = build(votes=votes).eval()
    views = [cloud(5), cloud(6, 1), cloud(4, 2)]
    voxels = Voxels(*(torch.cat([getattr(v, name) for v in views]) for name in ("features", "coords", "signals")))
    inverse = torch.stack([torch.randint(0, len(v), (30,)) for v in views])
    out = model.val_step({"inputs": [voxels], "data_samples": [sample(torch.zeros(30).long(), inverse)]})[0]
    scores = [model.model.head(view.features)[row] for view, row in zip(views, inverse)]
    norms = {"scores": lambda s: s / s.abs().sum(1, keepdim=True), "softmax": lambda s: s.softmax(1)}
    expected = sum(map(norms[votes], scores)) / 3
    torch.testing.assert_close(out.seg_logits.data, expected)
    assert all(batch.cloud.unique().tolist() == [0] for batch in model.model.batches)


def test_bad_calls():
    with pytest.raises(ValueError, match=r"model_name='swin3d_x_unet' is unknown to timm; did you mean .*swin3d"):
        build("swin3d_x_unet")
    with pytest.raises(ValueError, match="mode='train' is unknown; allowed: tensor, loss, predict"):
        build()(cloud(3), mode="train")
    with pytest.raises(ValueError, match="votes='mean' is unknown; allowed: scores, softmax"):
        build(votes="mean")
    with pytest.raises(ValueError, match="mode='loss' needs data_samples"):
        build()(cloud(3), mode="loss")


def test_swin3d_learns_and_its_weights_load(tmp_path):
    model = build("swin3d_s_unet", **TINY)
    voxels, labels = cloud(60), torch.randint(0, CLASSES, (60,))
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-2), []
    for _ in range(25):
        loss = model(voxels, [sample(labels)], mode="loss")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    start = {"type": "Pretrained", "checkpoint": str(path)}
    again = build("swin3d_s_unet", init_cfg=start, **TINY)
    again.init_weights()
    torch.testing.assert_close(again.eval()(voxels), model.eval()(voxels))
    with pytest.raises(ValueError, match="does not fit the model"):
        build("swin3d_s_unet", init_cfg=start, **{**TINY, "embed_dims": (8, 24)}).init_weights()


@pytest.mark.parametrize("skip", [True, False])
def test_filtered_weights_are_those_of_the_encoder(tmp_path, skip):
    source = build("swin3d_s_unet", **TINY)
    state = {name.removeprefix("model."): t + 1 for name, t in source.state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}}, tmp_path / "weights.pth")
    start = {"type": "Pretrained", "checkpoint": str(tmp_path / "weights.pth"), "filtered": True}
    model = CloudSegmentor("swin3d_s_unet", num_classes=CLASSES, init_cfg={**start, "skip_first_conv": skip}, **TINY)
    before = {name: t.clone() for name, t in model.model.state_dict().items()}
    model.init_weights()
    for name, tensor in model.model.state_dict().items():
        kept = name.startswith(("upsamples.", "classifier.")) or (skip and name.startswith("stem_layer."))
        assert torch.equal(tensor, before[name] if kept else state[name]), name
