"""All five architectures, drawn with equal probability."""

from tune_spaces import dcn, dcnv2, finalmlp, finalnet, wukong

SPACE = (dcn.SPACE, dcnv2.SPACE, finalnet.SPACE, finalmlp.SPACE, wukong.SPACE)
