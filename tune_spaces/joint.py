"""All five architectures; each is drawn as often as the others."""

from tune_spaces import dcn, dcnv2, finalmlp, finalnet, wukong

SPACE = (dcn.SPACE, dcnv2.SPACE, finalnet.SPACE, finalmlp.SPACE, wukong.SPACE)
