"""Calls of ``attnc.library``."""

from __future__ import annotations

_TEXTS = (
    "library.chunked(size=<4>, n_before=<1>).ir",
    "library.block_causal(size=<4>).ir",
    "library.block_diffusion(length=<10>, block=<2>).ir",
    (
        "library.neighborhood(grid=<(4,5)>, kernel_size=<3>, dilation=<1>, stride=<1>, "
        "is_causal=<False>).ir"
    ),
    "library.windows(grid=<(4,5)>, size=<2>, shift=<1>).ir",
    "library.sliding_tiles(grid=<(4,6)>, tile=<2>, n_tiles=<1>).ir",
    "library.axial(grid=<(4,5)>, axis=<1>).ir",
    "library.alibi_slopes(n_heads=<2>, device=<'cpu'>)",
    "library.alibi(slopes=<2>, device=<'cpu'>).ir",
    "library.softcap(cap=<20.0>).ir",
    "library.relative_bias(table=<torch.ones(2, 9)>).ir",
    "library.relative_bias_2d(table=<torch.ones(2, 7, 9)>, grid=<(4, 5)>).ir",
    "library.t5_bias(table=<torch.ones(32, 2)>, bidirectional=<True>, max_distance=<128>).ir",
    "library.periodic_bias(slopes=<torch.ones(2)>, period=<4>).ir",
    "library.log_n_scaling(n_trained=<128>).ir",
    "library.exponential_decay(gamma=<torch.ones(2)*.5>).ir",
    "library.logarithmic_decay(factor=<torch.ones(2)>, rate=<torch.ones(2)>).ir",
    "library.gaussian_decay(sigma=<torch.ones(2)>).ir",
    "library.causal(offset=<0>).ir",
    "library.sliding_window(left=<4>, right=<0>).ir",
    "library.dilated_window(left=<4>, right=<0>, dilation=<2>).ir",
    "library.global_window(n_global=<2>, left=<3>, right=<3>).ir",
    "library.sink_window(n_sinks=<2>, left=<4>).ir",
    "library.prefix_lm(length=<4>).ir",
    "library.strided(stride=<4>).ir",
    "library.fixed(stride=<4>, n_summary=<1>).ir",
    "library.power_of_two(block=<4>, left=<4>, n_sinks=<1>).ir",
    "library.windows_per_head(left=<torch.tensor([2,3])>, n_sinks=<torch.tensor([2,3])>).ir",
    "library.documents(ids=<IDS>).ir",
    "library.shared_prefix(ids=<IDS>, prefix=<0>).ir",
    "library.tree(parents=<[-1,0,0,1]>, n_context=<2>, device=<'cpu'>).ir",
)

CALLS = {text[: text.index("(")]: text for text in _TEXTS}
