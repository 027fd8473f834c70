"""Tables, graphs, images, attention in every form: the libraries beside series and texts."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from case import ROWS, Case, normal
from torch import nn


def made(
    module: str, name: str, *shape: int, then: Callable[[Any], Any] | None = None, single: bool = False, **options: Any
) -> Callable[[], Case]:
    """A class of a library and the shape of its rows."""
    return lambda: Case(getattr(import_module(module), name)(**options), normal(*shape), then, single)


def first(found: Any) -> Any:
    """Of several results the first."""
    return found[0]


def timm(name: str, size: int = 32, **options: Any) -> Callable[[], Case]:
    """An image classifier, as small as it goes."""
    return lambda: Case(
        import_module("timm").create_model(name, pretrained=False, num_classes=3, **options), normal(3, size, size)
    )


def vision(name: str, size: int = 32) -> Callable[[], Case]:
    """A classifier of torchvision."""
    return lambda: Case(getattr(import_module("torchvision.models"), name)(num_classes=3), normal(3, size, size))


def x_transformer(**options: Any) -> Callable[[], Case]:
    """A transformer over vectors, with one of the many options."""

    def build() -> Case:
        x = import_module("x_transformers")
        layers = x.Encoder(dim=16, depth=1, heads=2, attn_dim_head=8, **options)
        return Case(
            x.ContinuousTransformerWrapper(dim_in=3, dim_out=2, max_seq_len=8, attn_layers=layers), normal(6, 3)
        )

    return build


class OfNodes(nn.Module):
    """A graph network on one fixed graph: what it says of the first node."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 0]]))

    def forward(self, x: Any) -> Any:
        rows, nodes = x.shape[:2]
        shift = (torch.arange(rows) * nodes).repeat_interleave(self.edges.shape[1])
        found = self.layer(x.flatten(0, 1), self.edges.repeat(1, rows) + shift)
        return found.unflatten(0, (rows, nodes))[:, 0]


def graph(name: str, **options: Any) -> Callable[[], Case]:
    """A convolution over a graph."""
    return lambda: Case(OfNodes(getattr(import_module("torch_geometric.nn"), name)(3, 4, **options)), normal(4, 3))


def with_categories(name: str, **options: Any) -> Callable[[], Case]:
    """A transformer over columns, some of them categories."""

    def build() -> Case:
        model = getattr(import_module("tab_transformer_pytorch"), name)(
            categories=(4, 3), num_continuous=3, dim=8, depth=1, heads=2, dim_head=4, dim_out=2, **options
        )
        return Case(model, (torch.stack([torch.randint(4, (ROWS,)), torch.randint(3, (ROWS,))], 1), normal(3)))

    return build


MODELS = {
    "x-transformers": {
        "Encoder": x_transformer(),
        "rotary": x_transformer(rotary_pos_emb=True),
        "ALiBi, RMS norm": x_transformer(alibi_pos_bias=True, use_rmsnorm=True),
        "GLU, swish": x_transformer(ff_glu=True, ff_swish=True),
        "sparse top-k": x_transformer(attn_sparse_topk=2),
        "talking heads": x_transformer(attn_pre_talking_heads=True),
        "memory": x_transformer(attn_num_mem_kv=2),
    },
    "vit-pytorch": {
        "ViT": made(
            "vit_pytorch",
            "ViT",
            3,
            16,
            16,
            image_size=16,
            patch_size=8,
            num_classes=3,
            dim=16,
            depth=1,
            heads=2,
            mlp_dim=16,
        ),
        "SimpleViT": made(
            "vit_pytorch",
            "SimpleViT",
            3,
            16,
            16,
            image_size=16,
            patch_size=8,
            num_classes=3,
            dim=16,
            depth=1,
            heads=2,
            mlp_dim=16,
        ),
    },
    "linformer": {"Linformer": made("linformer", "Linformer", 8, 16, dim=16, seq_len=8, depth=1, heads=2, k=4)},
    "performer-pytorch": {
        "Performer": made("performer_pytorch", "Performer", 8, 16, dim=16, depth=1, heads=2, dim_head=8)
    },
    "local-attention": {
        "LocalTransformer's block": made(
            "local_attention.transformer", "LocalMHA", 8, 16, dim=16, window_size=4, heads=2, dim_head=8
        )
    },
    "iTransformer": {
        "iTransformer": made(
            "iTransformer",
            "iTransformer",
            12,
            3,
            num_variates=3,
            lookback_len=12,
            dim=8,
            depth=1,
            heads=2,
            dim_head=4,
            pred_length=2,
        )
    },
    "torch-geometric": {
        "GCN": graph("GCNConv"),
        "GAT": graph("GATConv", heads=2),
        "GATv2": graph("GATv2Conv", heads=2),
        "GraphSAGE": graph("SAGEConv"),
        "GraphSAGE, max": graph("SAGEConv", aggr="max"),
        "Transformer": graph("TransformerConv"),
        "ChebConv": graph("ChebConv", K=2),
        "ResGated": graph("ResGatedGraphConv"),
    },
    "timm": {
        "ViT": timm("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=2),
        "ResNet-18": timm("resnet18"),
        "MobileNetV3": timm("mobilenetv3_small_050"),
        "EfficientNet-B0": timm("efficientnet_b0"),
        "ConvNeXt": timm("convnext_atto"),
        "MLP-Mixer": timm("mixer_s32_224", 64, img_size=64),
        "DenseNet": timm("densenet121"),
        "RegNet": timm("regnetx_002"),
        "Swin": timm("swin_tiny_patch4_window7_224", 56, img_size=56, embed_dim=12, depths=(1, 1), num_heads=(2, 2)),
    },
    "torchvision": {
        "ResNet-18": vision("resnet18"),
        "MobileNetV2": vision("mobilenet_v2"),
        "SqueezeNet": vision("squeezenet1_1", 64),
        "ShuffleNetV2": vision("shufflenet_v2_x0_5"),
    },
    "pytorch-tabnet": {
        "TabNet": made(
            "pytorch_tabnet.tab_network",
            "TabNet",
            6,
            input_dim=6,
            output_dim=2,
            then=first,
            single=True,
            group_attention_matrix=torch.eye(6),
        ),
        "TabNet, entmax": made(
            "pytorch_tabnet.tab_network",
            "TabNet",
            6,
            input_dim=6,
            output_dim=2,
            mask_type="entmax",
            then=first,
            single=True,
            group_attention_matrix=torch.eye(6),
        ),
    },
    "tab-transformer-pytorch": {
        "FT-Transformer": with_categories("FTTransformer"),
        "TabTransformer": with_categories("TabTransformer", mlp_act=nn.ReLU()),
    },
    "tabm": {
        "TabM": made(
            "tabm",
            "TabM",
            6,
            n_num_features=6,
            d_out=2,
            n_blocks=2,
            d_block=8,
            dropout=0.0,
            arch_type="tabm",
            k=4,
            start_scaling_init="normal",
        )
    },
    "rtdl": {
        "ResNet": lambda: Case(
            import_module("rtdl").ResNet.make_baseline(
                d_in=6, n_blocks=1, d_main=8, d_hidden=8, dropout_first=0.0, dropout_second=0.0, d_out=2
            ),
            normal(6),
        )
    },
    "pykan": {"KAN": lambda: Case(import_module("kan").KAN([3, 4, 2], grid=3, k=3, auto_save=False), normal(3))},
    "efficientnet-pytorch": {
        "EfficientNet-B0": lambda: Case(
            import_module("efficientnet_pytorch").EfficientNet.from_name("efficientnet-b0", num_classes=3),
            normal(3, 32, 32),
        )
    },
}
