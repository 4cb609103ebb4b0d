"""timm: small members of many families, chosen for variety, with random weights."""

from functools import partial
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn

from zoo_entry import Entry, package

NAMES = (
    "deit_tiny_patch16_224 beit_base_patch16_224 levit_128s mixer_s32_224 gmlp_ti16_224 "
    "poolformer_s12 edgenext_xx_small mobilevit_xxs mobilevitv2_050 mobilenetv4_conv_small "
    "ghostnet_050 repvgg_a0 mobileone_s0 hrnet_w18_small dla46_c cspresnet50 res2net50_48w_2s "
    "resnest14d eca_nfnet_l0 nfnet_f0 xcit_nano_12_p16_224 pvt_v2_b0 tiny_vit_5m_224 fastvit_t8 "
    "efficientformer_l1 efficientformerv2_s0 convmixer_768_32 coatnet_nano_rw_224 "
    "maxvit_pico_rw_256 swin_tiny_patch4_window7_224 davit_tiny focalnet_tiny_srf hiera_tiny_224 "
    "volo_d1_224 cait_xxs24_224 visformer_tiny tresnet_m selecsls42b rexnet_100 skresnet18 "
    "eca_resnet33ts regnetx_002 regnety_002 rdnet_tiny resnet26d resnetv2_50 seresnet18 "
    "resnext26ts densenet121 dpn68 ese_vovnet19b_slim hardcorenas_a lcnet_050 tinynet_e "
    "mobilenetv2_050 mobilenetv3_small_050 mnasnet_small fbnetc_100 efficientnet_b0 "
    "tf_efficientnetv2_b0 mixnet_s convnext_atto convnextv2_atto darknet17 cs3darknet_focus_s "
    "gernet_s gcresnet33ts halonet26t lambda_resnet26t repghostnet_050 repvit_m0_9 "
    "inception_next_atto caformer_s18 eva02_tiny_patch14_224 sequencer2d_s mambaout_femto shvit_s1 "
    "swiftformer_xs starnet_s050 hgnetv2_b0 pit_ti_224 efficientvit_b0 fasternet_t0 resmlp_12_224 "
    "convit_tiny crossvit_9_240 coat_lite_tiny twins_pcpvt_small tnt_s_patch16_224 nest_tiny "
    "mvitv2_tiny xception41 vit_tiny_patch16_224 swinv2_tiny_window8_256 vgg11_bn"
)


def entries() -> list[Entry]:
    """One entry per name above."""
    return [Entry(name, partial(build, name), _images) for name in NAMES.split()]


def build(name: str) -> nn.Module:
    """The network `name` with random weights.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    model: nn.Module = package("timm").create_model(name, pretrained=False)
    return model


def _images(model: nn.Module, batch: int, generator: Generator) -> tuple[Tensor, ...]:
    """The input size that the network was made for."""
    shape = cast(dict[str, Any], model.pretrained_cfg)["input_size"]
    return (torch.randn((batch, *shape), generator=generator),)
