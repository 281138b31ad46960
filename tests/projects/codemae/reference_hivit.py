"""HiViT and its pyramid once more, slow and obvious: one unit, one sub-token, one head at a time."""

import torch
import torch.nn.functional as F


def norm(layer, x):
    centred = x - x.mean()
    return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def mlp(block, x):
    hidden = F.gelu(block.mlp.fc1.weight @ norm(block.norm2, x) + block.mlp.fc1.bias)
    return x + block.mlp.fc2.weight @ hidden + block.mlp.fc2.bias


def merge(layer, cells):
    """{(row, column): token} -> the same on half the side."""
    side = int(len(cells) ** 0.5) // 2
    merged = {}
    for i in range(side):
        for j in range(side):
            four = [cells[2 * i, 2 * j], cells[2 * i + 1, 2 * j], cells[2 * i, 2 * j + 1], cells[2 * i + 1, 2 * j + 1]]
            merged[i, j] = layer.reduction.weight @ norm(layer.norm, torch.cat(four))
    return merged


def split(layer, cells):
    """{(row, column): token} -> the same on twice the side."""
    finer = {}
    for (i, j), token in cells.items():
        children = (layer.reduction.weight @ norm(layer.norm, token)).view(2, 2, -1)
        for a in range(2):
            for b in range(2):
                finer[2 * i + a, 2 * j + b] = children[a, b]
    return finer


def attend(attention, tokens, heads):
    """[token] -> [what attention adds to each]."""
    dim = len(tokens[0])
    size = dim // heads
    rows = [attention.qkv.weight @ token + attention.qkv.bias for token in tokens]
    added = []
    for row in rows:
        parts = []
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            query = row[:dim][at]
            logits = torch.stack([query @ other[dim : 2 * dim][at] for other in rows]) / size**0.5
            shares = logits.softmax(0)
            parts.append(sum(share * other[2 * dim :][at] for share, other in zip(shares, rows, strict=True)))
        added.append(attention.proj.weight @ torch.cat(parts) + attention.proj.bias)
    return added


def cells_of_unit(embedding, crop):
    """(C, unit, unit) pixels -> {(row, column): token}."""
    maps = F.conv2d(crop[None], embedding.proj.weight, embedding.proj.bias, stride=embedding.proj.stride)[0]
    side = maps.shape[1]
    return {(i, j): norm(embedding.norm, maps[:, i, j]) for i in range(side) for j in range(side)}


def stack(cells):
    side = int(len(cells) ** 0.5)
    return torch.stack([cells[i, j] for i in range(side) for j in range(side)])


def through_pyramid(pyramid, last, middle, fine):
    """One unit: its last token and its two skips -> three levels (k, C)."""
    coarse = pyramid.lateral16.weight @ last + pyramid.lateral16.bias
    cells = split(pyramid.split16, {(0, 0): last})
    cells = {at: token + pyramid.lateral8.weight @ middle[at] for at, token in cells.items()}
    for block in pyramid.join8:
        cells = {at: mlp(block, token) for at, token in cells.items()}
    finest = split(pyramid.split8, cells)
    finest = {at: token + pyramid.lateral4.weight @ fine[at] for at, token in finest.items()}
    for block in pyramid.join4:
        finest = {at: mlp(block, token) for at, token in finest.items()}
    return (
        mlp(pyramid.out16, coarse)[None],
        stack({at: mlp(pyramid.out8, token) for at, token in cells.items()}),
        stack({at: mlp(pyramid.out4, token) for at, token in finest.items()}),
    )


def encode_image(model, image, sensor, units, *, depths, heads, positions):
    """One image (C, H, W) -> (levels coarse to fine (V, k, C), tokens (V, D)).

    Args:
        model: the `HiViT` whose weights to use.
        image: normalised.
        sensor: whose embedding.
        units: indices of the visible ones.
        depths: blocks of the three stages.
        heads: of attention.
        positions: (units of the image, D) at its grid.
    """
    size, columns = model.unit_size, image.shape[2] // model.unit_size
    tokens, fines, middles = [], [], []
    for unit in units:
        top, left = unit // columns * size, unit % columns * size
        cells = cells_of_unit(model.embed[sensor], image[:, top : top + size, left : left + size])
        index = 0
        for stage, skips in ((0, fines), (1, middles)):
            for _ in range(depths[stage]):
                cells = {at: mlp(model.blocks[index], token) for at, token in cells.items()}
                index += 1
            skips.append(cells)
            cells = merge(model.blocks[index], cells)
            index += 1
        tokens.append(cells[0, 0] + positions[unit])
    for block in model.blocks[index:]:
        added = attend(block.attn, [norm(block.norm1, token) for token in tokens], heads)
        tokens = [mlp(block, token + more) for token, more in zip(tokens, added, strict=True)]
    levels = [through_pyramid(model.pyramid, *parts) for parts in zip(tokens, middles, fines, strict=True)]
    return [torch.stack(level) for level in zip(*levels, strict=True)], torch.stack(tokens)
