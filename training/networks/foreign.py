"""A network by a function of the user's, which a recipe names as `module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import keras

from service.manifest import Input
from training.errors import RecipeError
from training.networks.network import Network

SQUASHING = {"softmax", "log_softmax", "sigmoid"}


def build(reference: str, target: Input, classes: int) -> Network:
    """Call `function(height, width, classes)` and make a flat model with the layers and weights of what it gives.

    The function gives a Sequential or functional model: pictures [N, height, width, 3], 0 to 255, in; logits
    [N, classes] out. Grad-CAM gets the last layer with feature maps. What the function itself raises, it raises.

    Raises:
        RecipeError: there is no such function, or its model is none that can be trained and exported.
    """
    made = _function(reference)(target.height, target.width, classes)
    size = (None, target.height, target.width, 3)
    if isinstance(made, keras.Sequential) and not made.built:
        made.build(size)
    if not isinstance(made, keras.Model) or not hasattr(made, "inputs"):
        raise _misfit(reference, "a keras.Sequential or functional model", type(made).__name__)
    _require_shape(reference, "pictures in", size, [tensor.shape for tensor in made.inputs])
    _require_shape(reference, "logits out", (None, classes), [tensor.shape for tensor in made.outputs])
    for layer in made.layers:
        if isinstance(layer, keras.Model):
            raise _misfit(reference, "layers only", f"the model {layer.name!r} among them, whose inside cannot be seen")
    if (last := _squashes(made)) is not None:
        raise _misfit(reference, "logits", f"{last} at the end; the export has a softmax of its own")
    model = _on_bytes(made, target)
    return Network(model, _gradcam_layer(reference, model))


def _function(reference: str) -> Callable[[int, int, int], object]:
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    # Whatever a module of the user's does while it is imported.
    except Exception as error:
        raise _misfit(reference, "a module that can be imported", f"{type(error).__name__}: {error}") from error
    function: Callable[[int, int, int], object] | None = getattr(module, name, None)
    if not callable(function):
        raise _misfit(reference, f"a function {name!r} in the module", "none")
    return function


def _misfit(reference: str, expected: str, found: str) -> RecipeError:
    return RecipeError(f"network: {reference}: expected {expected}, found {found}")


def _require_shape(
    reference: str, what: str, expected: tuple[int | None, ...], found: list[tuple[int | None, ...]]
) -> None:
    if found != [expected]:
        raise _misfit(reference, f"{what} of shape {expected}", " and ".join(map(str, found)))


def _squashes(model: keras.Model) -> str | None:
    """The name of what makes probabilities of the logits at the model's end, if anything does."""
    last = model.operations[-1] if hasattr(model, "operations") else model.layers[-1]
    names = {type(last).__name__.lower(), getattr(getattr(last, "activation", None), "__name__", "")}
    return next(iter(names & SQUASHING), None)


def _on_bytes(made: keras.Model, target: Input) -> keras.Model:
    """The same graph behind an input of uint8 `images`, each layer anew: a layer knows only its first graph."""

    def call(operation: keras.Operation, *arguments: object, **options: object) -> object:
        return operation(*keras.tree.map_structure(_floating, arguments), **options)

    images = keras.Input((target.height, target.width, 3), dtype="uint8", name="images")
    functional = keras.Model(made.inputs[0], made.outputs[0], name=made.name)
    model = keras.models.clone_model(functional, input_tensors=images, call_function=call)
    model.set_weights(made.get_weights())
    return model


def _floating(argument: object) -> object:
    is_bytes = isinstance(argument, keras.KerasTensor) and argument.dtype == "uint8"
    return keras.ops.cast(argument, keras.config.floatx()) if is_bytes else argument


def _gradcam_layer(reference: str, model: keras.Model) -> str:
    # Dropout gives at inference what it gets.
    silent = (keras.layers.InputLayer, keras.layers.Dropout)
    maps = [layer for layer in model.layers if len(layer.output.shape) == 4 and not isinstance(layer, silent)]
    if not maps:
        raise _misfit(reference, "a layer with feature maps [N, h, w, c], for Grad-CAM", "none")
    try:
        keras.Model(maps[-1].output, model.output)
    except ValueError:
        raise _misfit(
            reference, "all ways to the logits through the last layer with feature maps", f"one past {maps[-1].name!r}"
        ) from None
    return str(maps[-1].name)
