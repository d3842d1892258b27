"""Keras' applications as backbones and as ImageNet classifiers: flat, each with its own preprocessing in the graph."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import h5py
import keras
from keras import layers

from service.manifest import Input
from training.errors import RecipeError, WeightsError
from training.networks.network import Network
from training.recipe import Backbone, Head

IMAGENET_CLASSES = 1000
# Of ImageNet's training pictures: the means of Caffe's models (blue, green, red; 0 to 255), and the deviations of
# PyTorch's (red, green, blue; 0 to 1).
CAFFE_MEANS = (103.939, 116.779, 123.68)
DEVIATIONS = (0.229, 0.224, 0.225)

# What Keras raises where a file of weights is another model's.
MISFITS = (ValueError, KeyError, UserWarning)

ROOT_OFFSET = 0.01

Weights = Path | Literal["imagenet", "random"]
"""A file, Keras' download, or none."""


def _caffe(images: keras.KerasTensor) -> keras.KerasTensor:
    blue_green_red = keras.ops.flip(images, axis=-1)
    return layers.Rescaling(1.0, offset=[-mean for mean in CAFFE_MEANS], name="preprocessing")(blue_green_red)


def _minus_one_to_one(images: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(images)


def _inside(images: keras.KerasTensor) -> keras.KerasTensor:
    return images


def _normalise_as_trained(model: keras.Model) -> None:
    """What Keras adds to EfficientNet only where it downloads the weights itself: a division by the deviations' roots.

    See its source, and issue 49930 of tensorflow/tensorflow.
    """
    layer = next(layer for layer in model.layers if isinstance(layer, layers.Normalization))
    stored: dict[str, object] = {}
    layer.save_own_variables(stored)
    stored["1"] = stored["1"] * keras.ops.convert_to_numpy(DEVIATIONS)
    layer.load_own_variables(stored)


@dataclass(frozen=True)
class Application:
    """One of Keras' architectures, and what its ImageNet weights ask for."""

    constructor: Callable[..., keras.Model]
    preprocessing: Callable[[keras.KerasTensor], keras.KerasTensor]
    side: int
    """Pixels a side of the pictures that the ImageNet classifier was trained on."""
    smallest_side: int
    gradcam_layer: str
    """The last feature maps before pooling."""
    paper: str
    licence: str
    """SPDX expression, of the ImageNet weights."""
    crop_share: float = 0.875
    """Of the largest centred square: `resize to 256, centre crop 224`."""
    after_loading: Callable[[keras.Model], None] = lambda model: None
    """What a weights file of Keras leaves to do."""


APPLICATIONS = {
    "vgg16": Application(
        keras.applications.VGG16,
        _caffe,
        side=224,
        smallest_side=32,
        gradcam_layer="block5_conv3",
        paper="Karen Simonyan, Andrew Zisserman, "
        '"Very deep convolutional networks for large-scale image recognition", 2015',
        licence="CC-BY-4.0",
    ),
    "resnet50": Application(
        keras.applications.ResNet50,
        _caffe,
        side=224,
        smallest_side=32,
        gradcam_layer="conv5_block3_out",
        paper='Kaiming He et al., "Deep residual learning for image recognition", 2016',
        licence="MIT",
    ),
    "xception": Application(
        keras.applications.Xception,
        _minus_one_to_one,
        side=299,
        smallest_side=71,
        gradcam_layer="block14_sepconv2_act",
        paper='François Chollet, "Xception: Deep learning with depthwise separable convolutions", 2017',
        licence="MIT",
    ),
    "inception_v3": Application(
        keras.applications.InceptionV3,
        _minus_one_to_one,
        side=299,
        smallest_side=75,
        gradcam_layer="mixed10",
        paper='Christian Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016',
        licence="Apache-2.0",
    ),
    "mobilenet": Application(
        keras.applications.MobileNet,
        _minus_one_to_one,
        side=224,
        smallest_side=32,
        gradcam_layer="conv_pw_13_relu",
        paper="Andrew G. Howard et al., "
        '"MobileNets: Efficient convolutional neural networks for mobile vision applications", 2017',
        licence="Apache-2.0",
        # Of shares from .8 to 1 those from .9 to .95 let it name most of 20 photographs: 18, and 16 at .875.
        crop_share=0.9,
    ),
    "mobilenet_v3_small": Application(
        keras.applications.MobileNetV3Small,
        _inside,
        side=224,
        smallest_side=32,
        gradcam_layer="conv_1_bn",
        paper='Andrew Howard et al., "Searching for MobileNetV3", 2019',
        licence="Apache-2.0",
    ),
    "mobilenet_v3_large": Application(
        keras.applications.MobileNetV3Large,
        _inside,
        side=224,
        smallest_side=32,
        gradcam_layer="conv_1_bn",
        paper='Andrew Howard et al., "Searching for MobileNetV3", 2019',
        licence="Apache-2.0",
    ),
    "efficientnet_b0": Application(
        keras.applications.EfficientNetB0,
        _inside,
        side=224,
        smallest_side=32,
        gradcam_layer="top_activation",
        paper='Mingxing Tan, Quoc V. Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", '
        "2019",
        licence="Apache-2.0",
        after_loading=_normalise_as_trained,
    ),
}


def find(name: str) -> Application:
    """The application of that name.

    Raises:
        RecipeError: there is none here.
    """
    if name not in APPLICATIONS:
        raise RecipeError(f"backbone: expected one of {', '.join(APPLICATIONS)}, found {name!r}")
    return APPLICATIONS[name]


def build(backbone: Backbone, target: Input, classes: int, weights: Path | None = None) -> Network:
    """A backbone without its top, and the recipe's head: uint8 [N, H, W, 3] to logits [N, classes].

    `weights`, a file with or without the top's, stands instead of the download.

    Raises:
        RecipeError: Keras has no such application here, or it cannot take pictures that small.
        WeightsError: the download failed, or the file does not fit.
    """
    application = find(backbone.name)
    if weights and backbone.weights == "random":
        raise RecipeError('backbone.weights: expected "imagenet" where a file of weights is given, found "random"')
    side = min(target.height, target.width)
    if side < application.smallest_side:
        raise RecipeError(
            f"input: expected at least {application.smallest_side} pixels a side for {backbone.name}, found {side}"
        )
    images = keras.Input((target.height, target.width, 3), dtype="uint8", name="images")
    base = _construct(backbone.name, images, weights or backbone.weights, include_top=False)
    logits = _head(base.output, backbone.head, classes)
    own = [layer.name for layer in base.layers if layer.name not in {"images", "preprocessing"}]
    return Network(keras.Model(images, logits, name=backbone.name), application.gradcam_layer, tuple(own))


def build_classifier(name: str, weights: Weights) -> Network:
    """The whole application: uint8 [N, side, side, 3] to ImageNet's 1000 logits.

    Raises:
        RecipeError: Keras has no such application here.
        WeightsError: the download failed, or the file does not fit.
    """
    application = find(name)
    images = keras.Input((application.side, application.side, 3), dtype="uint8", name="images")
    model = _construct(name, images, weights, include_top=True)
    return Network(model, application.gradcam_layer, tuple(layer.name for layer in model.layers))


def _head(feature_maps: keras.KerasTensor, head: Head, classes: int) -> keras.KerasTensor:
    if head.pooling == "flatten":
        x = layers.Flatten(name="flatten")(feature_maps)
    elif head.pooling == "average":
        x = layers.GlobalAveragePooling2D(name="average")(feature_maps)
    elif head.pooling == "root_average":
        means = layers.GlobalAveragePooling2D(name="average")(feature_maps)
        # Of nothing at all, a root has no slope to learn from.
        x = keras.ops.sqrt(means + ROOT_OFFSET)
    elif head.pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max")(feature_maps)
    else:
        means = layers.GlobalAveragePooling2D(name="average")(feature_maps)
        maxima = layers.GlobalMaxPooling2D(name="max")(feature_maps)
        x = layers.Concatenate(name="average_max")([means, maxima])
    x = layers.Dense(head.units, activation="relu", name="hidden")(x)
    x = layers.Dropout(head.dropout, name="dropout")(x)
    # A softmax over half precision would lose the small probabilities.
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def _construct(name: str, images: keras.KerasTensor, weights: Weights, *, include_top: bool) -> keras.Model:
    """Called with a tensor, Keras' constructors add their layers to its graph instead of nesting a model in it."""
    application = APPLICATIONS[name]
    options = {
        "include_top": include_top,
        "input_tensor": application.preprocessing(images),
        "input_shape": tuple(images.shape[1:]),
        "name": name,
        **({"classifier_activation": None} if include_top else {}),
    }
    if weights == "imagenet":
        with download(f"the ImageNet weights of {name}", "--weights PATH takes a file instead"):
            return application.constructor(weights="imagenet", **options)
    model = application.constructor(weights=None, **options)
    if weights != "random":
        _load(model, name, weights, include_top=include_top)
        application.after_loading(model)
    return model


@contextlib.contextmanager
def download(what: str, instead: str) -> Iterator[None]:
    """Keras' downloads, their progress on standard error.

    Raises:
        WeightsError: what was downloading, why it failed, and which option helps.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception as failure:
        # Keras raises a bare Exception where an address cannot be opened, and ValueError for an incomplete file.
        if not (type(failure) is Exception or isinstance(failure, OSError | HTTPException | ValueError)):
            raise
        raise WeightsError(f"{what} could not be downloaded: {failure}; {instead}") from failure


def _load(model: keras.Model, name: str, path: Path, *, include_top: bool) -> None:
    if not path.is_file():
        raise WeightsError(f"{path}: expected a file of weights, found {'a folder' if path.exists() else 'none'}")
    if path.suffix not in {".h5", ".hdf5"}:
        raise WeightsError(f"{path}: expected a name that ends in .weights.h5 or .h5, by which Keras tells the format")
    try:
        found = _stored(path)
    except OSError as unreadable:
        raise WeightsError(f"{path}: expected a file of weights in HDF5, found none: {unreadable}") from unreadable
    try:
        _read_weights(model, path)
    except MISFITS as misfit:
        if not include_top and _load_from_whole(model, name, path):
            return
        raise WeightsError(
            f"{path}: expected the weights of {name}{'' if include_top else ', with or without its top'} "
            f"({_size(model)}), found {found} that do not fit"
        ) from misfit


def _read_weights(model: keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # What Keras says where it leaves layers as they were.
        warnings.filterwarnings("error", "Skipping nested container", UserWarning)
        model.load_weights(path)


def _load_from_whole(base: keras.Model, name: str, path: Path) -> bool:
    """Take a backbone's weights from a file of the whole application in the older format, which numbers all layers."""
    whole = APPLICATIONS[name].constructor(weights=None)
    try:
        _read_weights(whole, path)
    except MISFITS:
        return False
    # The top's layers come last.
    for target, source in zip(_with_weights(base), _with_weights(whole), strict=False):
        stored: dict[str, object] = {}
        source.save_own_variables(stored)
        target.load_own_variables(stored)
    return True


def _with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if layer.weights]


def _size(model: keras.Model) -> str:
    return f"{len(model.weights)} arrays, {model.count_params():,} numbers"


def _stored(path: Path) -> str:
    sizes: list[int] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    return f"{len(sizes)} arrays, {sum(sizes):,} numbers,"
