"""What the tests of single encodings share: checks that need no formula, and the reference files."""

from __future__ import annotations

import torch
from conftest import randomize, tiny_vit
from reference_files import close as close
from reference_files import read as read
from torch import Tensor
from torch.export import Dim

from visionpe import Composition, Grid, create_encoding
from visionpe.attention.dispatch import AttentionWeights


def make(
    spec: object, *, dim: int = 16, num_heads: int = 2, depth: int = 2, grid_size: tuple[int, ...] = (4, 4)
) -> Composition:
    encoding = create_encoding(spec, dim=dim, num_heads=num_heads, depth=depth, grid_size=grid_size)
    encoding = encoding if isinstance(encoding, Composition) else Composition([encoding])
    encoding = randomize(encoding)
    with torch.no_grad():  # what starts at zero too
        for parameter in encoding.parameters():
            if not parameter.any():
                parameter.normal_()
    return encoding


def through(encoding: Composition, q: Tensor, k: Tensor, v: Tensor, x: Tensor, grid: Grid, layer: int) -> list[Tensor]:
    """What each site makes of random inputs: tokens, logits, attended values."""
    tokens = torch.cat((x[:, : grid.prefix], encoding.add(x[:, grid.prefix :], grid)), dim=1)
    biases = encoding.bias(q, k, grid, layer=layer, tokens=tokens)
    turned, others = encoding.rotate(q, k, grid, layer=layer, tokens=tokens)
    logits = turned @ others.transpose(-2, -1) * q.shape[-1] ** -0.5
    for bias in biases:
        logits = logits + bias.matrix(q.dtype)
    weights = AttentionWeights(q, k, biases)
    attended = encoding.output(logits.softmax(-1) @ encoding.value(v, grid, layer=layer), grid, layer=layer)
    mixed = encoding.mix(attended, v, grid, layer=layer, weights=weights)
    return [encoding.inject(tokens, grid, layer=layer), logits, mixed]


def check_gradients(spec: object, prefix: int = 1, size: tuple[int, ...] = (3, 5)) -> None:
    """Numerical gradients in float64, for the inputs and every parameter; and every parameter has one."""
    encoding = make(spec).double()
    grid = Grid(size, prefix)
    q, k, v = (torch.randn(1, 2, grid.num_tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    x = torch.randn(1, grid.num_tokens, 16, dtype=torch.float64, requires_grad=True)
    factors = [torch.randn(n, dtype=torch.float64) for n in (grid.num_tokens, grid.num_tokens, 8)]

    def objective(q: Tensor, k: Tensor, v: Tensor, x: Tensor, *parameters: Tensor) -> Tensor:
        total = x.new_zeros(())
        for layer in range(2):
            tokens, logits, mixed = through(encoding, q, k, v, x, grid, layer)
            total = total + (tokens.sin() * factors[0][:, None]).sum() + (logits.tanh() * factors[1]).sum()
            total = total + (mixed.sin() * factors[2]).sum()
        return total

    inputs = (q, k, v, x, *encoding.parameters())
    assert torch.autograd.gradcheck(objective, inputs, fast_mode=True)
    objective(*inputs).backward()
    for name, parameter in encoding.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def randomized_vit(spec: object, **kwargs: object) -> torch.nn.Module:
    model = tiny_vit(spec, **kwargs)
    with torch.no_grad():
        for parameter in model.pos_encoding.parameters():
            if not parameter.any():
                parameter.normal_()
    return model


def shuffled(x: Tensor, order: Tensor) -> Tensor:
    """Images whose patches of 4 x 4 pixels have changed places."""
    size = x.shape[-2] // 4, x.shape[-1] // 4
    patches = x.unflatten(2, (size[0], 4)).unflatten(4, (size[1], 4)).transpose(3, 4).flatten(2, 3)[:, :, order]
    return patches.unflatten(2, size).transpose(3, 4).flatten(4).flatten(2, 3)


def check_sizes(spec: object) -> None:
    """Larger, smaller and non-square inputs, with and without prefix tokens; the places of the patches matter."""
    for keywords in ({}, dict(reg_tokens=4), dict(class_token=False, global_pool="avg")):
        model = randomized_vit(spec, **keywords)
        for size in ((24, 24), (8, 40), (4, 4), (48, 28)):
            x, order = torch.randn(2, 3, *size), torch.randperm(size[0] * size[1] // 16)
            with torch.no_grad():
                tokens, moved = model.forward_features(x), model.forward_features(shuffled(x, order))
            assert tokens.isfinite().all()
            first = model.num_prefix_tokens
            if len(order) > 2:
                assert (tokens[:, first:][:, order] - moved[:, first:]).abs().max() > 1e-2


def check_export(spec: object, **kwargs: object) -> None:
    """One exported graph serves every number of images, height and width."""
    model = randomized_vit(spec, **kwargs)
    height, width = (4 * Dim(name, min=1, max=32) for name in ("height", "width"))
    shapes = ({0: Dim("batch", min=1, max=64), 2: height, 3: width},)
    program = torch.export.export(model, (torch.randn(2, 3, 24, 32),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        for batch, size in ((2, (24, 32)), (1, (36, 20)), (5, (12, 48))):
            x = torch.randn(batch, 3, *size)
            torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)


def check_compile(spec: object, **kwargs: object) -> None:
    """No graph break, forward and backward, at several sizes."""
    torch._dynamo.reset()
    model = randomized_vit(spec, depth=1, **kwargs).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((24, 24), (20, 32)):
        x = torch.randn(2, 3, *size)
        grads = []
        for run in (model, compiled):
            model.zero_grad()
            out = run(x)
            out.square().sum().backward()
            grads.append([out.detach(), *(p.grad.clone() for p in model.parameters())])
        for ours, wanted in zip(*grads):
            torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
