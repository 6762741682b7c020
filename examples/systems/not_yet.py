"""Systems, or parts of systems, that cannot run yet, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotYet:
    """``source`` as in ``System``; ``reason`` in one sentence."""

    source: str
    reason: str


#: By the name in the paper.
NOT_YET: dict[str, NotYet] = {
    "MAFT, table of values": NotYet(
        "Mask-Attention-Free Transformer for 3D Instance Segmentation, arXiv:2309.01692",
        "What is added to a value depends on the query too, so it is no row of V.",
    ),
    "PINE, positions by importance": NotYet(
        "Eliminating Position Bias of Language Models: A Mechanistic Approach, arXiv:2407.01100",
        "A key is rotated by a position that depends on the query's document too, so it is no row "
        "of K.",
    ),
    "TransNeXt, learned tokens": NotYet(
        "TransNeXt: Robust Foveal Visual Perception for Vision Transformers, arXiv:2311.17132",
        "They add to weights after the softmax, which takes scores only.",
    ),
    "Graph Transformer, edge features by channel": NotYet(
        "A Generalization of Transformer Networks to Graphs, arXiv:2012.09699",
        "An edge multiplies each channel of q and k before they are summed, and a score_mod gets "
        "the sum.",
    ),
    "Graph Transformer, stream of edges": NotYet(
        "A Generalization of Transformer Networks to Graphs, arXiv:2012.09699",
        "The next layer's edges read the scores, which are no output.",
    ),
    "Adaptive Filter Attention, general": NotYet(
        "Attention as an Adaptive Filter, arXiv:2509.04154",
        "Each channel decays at a rate of its own, and a score_mod gets the sum over channels.",
    ),
    "MaX4Zero, contrast of the reference": NotYet(
        "MaX4Zero: Masked Extended Attention for Zero-Shot Virtual Try-On In The Wild, "
        "arXiv:2406.15331",
        "Weights are moved away from their mean over a row's reference and cut off at 0 and 1, "
        "after the softmax, which takes scores only.",
    ),
    "Bounded Attention, guidance": NotYet(
        "Be Yourself: Bounded Attention for Multi-Subject Text-to-Image Generation, "
        "arXiv:2403.16990",
        "Its loss is computed from the weights, which are no output.",
    ),
    "HPNet, edge features": NotYet(
        "HPNet: Dynamic Trajectory Forecasting with Historical Prediction Attention, "
        "arXiv:2404.06351",
        "Where a prediction lies as seen from another is added to keys and values, so they are no "
        "rows of K and V.",
    ),
    "EGformer, normaliser": NotYet(
        "EGformer: Equirectangular Geometry-biased Transformer for 360 Depth Estimation, "
        "arXiv:2304.07803",
        "A row of scores is divided by its length and put through 1 - cos, which is no softmax.",
    ),
    "Attention Regulation, ends of the prompt": NotYet(
        "Enhancing Semantic Fidelity in Text-to-Image Synthesis: Attention Regulation in Diffusion "
        "Models, arXiv:2403.06381",
        "After the softmax their weights are put back to what they were before the edit.",
    ),
}
