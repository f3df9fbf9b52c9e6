"""Caffe's files: their weights come back, and ours compute what Caffe computes with them."""

import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
from conftest import memory

import models
from models.sources import caffe
from models.tools import caffemodel, published, state_dicts

# A writer of protobuf's wire format.
PRESENT, OLDER = 100, 2  # fields of NetParameter with layers of either form
TYPES = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18}


def varint(number):
    number %= 1 << 64
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number, value):
    """A field that holds a number or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def floats(array, packed=True, number=5):
    array = np.asarray(array)
    if packed:
        return field(number, array.tobytes())
    tag = varint(number << 3 | (5 if array.itemsize == 4 else 1))
    return b"".join(tag + each.tobytes() for each in array.ravel())


def shape(*lengths, packed=True):
    if packed:
        return field(7, field(1, b"".join(map(varint, lengths))))
    return field(7, b"".join(field(1, length) for length in lengths))


def older_shape(*lengths):
    lengths = (1,) * (4 - len(lengths)) + lengths
    return b"".join(field(number, length) for number, length in enumerate(lengths, start=1))


def blob(array, form=PRESENT):
    return (shape if form == PRESENT else older_shape)(*array.shape) + floats(array)


def layer(name, kind, *blobs, form=PRESENT):
    """A layer with its inputs, and a parameter that holds fields of its own."""
    if form == PRESENT:
        head = field(1, name) + field(2, kind.encode()) + field(3, b"data") + field(4, name)
        return field(
            100, head + field(6, b"\x0d" + bytes(4)) + b"".join(field(7, b) for b in blobs)
        )
    head = field(2, b"data") + field(3, name) + field(4, name) + field(5, TYPES[kind])
    rate = varint(7 << 3 | 5) + struct.pack("<f", 2)
    return field(2, head + b"".join(field(6, b) for b in blobs) + rate + field(1001, b""))


def network(*layers):
    return field(1, b"a network") + field(3, b"data") + field(4, 10) + b"".join(layers)


def save(path, state, form):
    """Writes weights as Caffe does: parts are written one by one, the file can be large."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in state)
    with open(path, "wb") as file:
        file.write(network())
        for name in names:
            blobs = [state[f"{name}.weight"], state[f"{name}.bias"]]
            kind = "InnerProduct" if blobs[0].ndim == 2 else "Convolution"
            blobs = [blob(array, form) for array in blobs]
            file.write(layer(name.encode(), kind, *blobs, form=form))
            file.write(layer(b"relu_" + name.encode(), "ReLU", form=form))


# What is read.


def draw(*lengths, seed=0):
    return np.random.default_rng(seed).standard_normal(lengths, np.float32)


SMALL = {
    "conv1/7x7.weight": draw(4, 3, 7, 5),
    "conv1/7x7.bias": draw(4),
    "one.weight": draw(1, 1, 3, 3),
    "one.bias": draw(1),
    "fc.weight": draw(1, 6),
    "fc.bias": draw(1),
}


@pytest.mark.parametrize("form", [PRESENT, OLDER])
def test_weights_come_back(form, tmp_path):
    save(tmp_path / "a.caffemodel", SMALL, form)
    received = caffemodel.read(tmp_path / "a.caffemodel")
    assert list(received) == list(SMALL)
    for name, array in SMALL.items():
        assert received[name].dtype == np.float32 and not received[name].flags.writeable
        np.testing.assert_array_equal(received[name], array)


W = np.arange(6, dtype=np.float32).reshape(2, 3)
BLOBS = {
    "packed": shape(2, 3) + floats(W),
    "numbers one by one": shape(2, 3) + floats(W, packed=False),
    "the shape one by one, at the end": floats(W, packed=False) + shape(2, 3, packed=False),
    "a shape in two parts": shape(2) + floats(W) + shape(3),
    "gradients": shape(2, 3) + floats(-W, number=6) + floats(W),
    "gradients one by one": floats(-W, packed=False, number=6) + shape(2, 3) + floats(W),
    "doubles": shape(2, 3) + floats(W.astype(float), number=8) + floats(-W.astype(float), number=9),
    "doubles one by one": shape(2, 3) + floats(W.astype(float), packed=False, number=8),
    "no doubles": floats(np.empty(0), number=8) + shape(2, 3) + floats(W),
    "older": older_shape(2, 3) + floats(W),
}


@pytest.mark.parametrize("kind", BLOBS)
def test_every_form_of_a_blob_is_read(kind, tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(network(layer(b"fc", "InnerProduct", BLOBS[kind])))
    (name, array), *others = caffemodel.read(path).items()
    assert name == "fc.weight" and not others
    np.testing.assert_array_equal(array, W)


def test_further_arrays_of_a_layer_have_numbers(tmp_path):
    path = tmp_path / "a.caffemodel"
    path.write_bytes(network(layer(b"norm", "BatchNorm", *map(blob, (W[0], W[1], W[0, :1])))))
    assert list(caffemodel.read(path)) == ["norm.weight", "norm.bias", "norm.2"]


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file, expected a .caffemodel, rec"):
        caffemodel.read(tmp_path / "none.caffemodel")


# What is refused.


def one(content):
    """A network of one dense layer with a blob."""
    return network(layer(b"fc", "InnerProduct", content))


WHOLE = one(BLOBS["packed"])
NAMED = layer(b"a", "InnerProduct", BLOBS["packed"])
DEEP = b""
for _ in range(300):
    DEEP = field(100, DEEP)
HOSTILE = {
    "empty": (b"", "empty"),
    "text": (b'name: "AlexNet"\nlayer {\n  name: "data"\n}\n', "wire type 6"),
    "zeros": (bytes(10**4), "a field 0"),
    "no layers": (network(), "no weights"),
    "no blobs": (network(layer(b"relu1", "ReLU")), "no weights"),
    "cut in the numbers": (WHOLE[:-5], "bytes where"),
    "cut in a tag": (WHOLE + b"\xa2", "without an end"),
    "cut in a length": (WHOLE + b"\xa2\x06\xff", "without an end"),
    "cut after a tag": (WHOLE + b"\xa2\x06", "without an end"),
    "a number of 11 bytes": (WHOLE + b"\x20" + b"\xff" * 10 + b"\x01", "without an end"),
    "a length of 2^64 - 1": (b"\xa2\x06" + varint(-1) + WHOLE, "18,446,744,073,709,551,615"),
    "a blob longer than its layer": (field(100, b"\x3a\x64" + WHOLE[:20]), "bytes where 20"),
    "numbers longer than their blob": (one(shape(2, 3) + b"\x2a\x7f" + bytes(24)), "where 24"),
    "numbers cut within one": (one(shape(2, 3) + field(5, bytes(23))), "multiple of element"),
    "a layer that is a number": (field(100, 7), "a field 100 of wire type 0"),
    "a name that is a number": (field(100, field(1, 5)), "a field 1 of wire type 0"),
    "a type that is a number": (field(100, field(2, 5)), "a field 2 of wire type 0"),
    "an older type that is a text": (field(2, field(5, b"ReLU")), "a field 5 of wire type 2"),
    "a blob that is a number": (field(100, field(7, 5)), "a field 7 of wire type 0"),
    "numbers that are a varint": (one(shape(1) + field(5, 1)), "a field 5 of wire type 0"),
    "numbers of 64 bits": (one(shape(1) + b"\x29" + bytes(8)), "a field 5 of wire type 1"),
    "a shape that is a number": (one(field(7, 6) + floats(W)), "a field 7 of wire type 0"),
    "groups": (100_000 * b"\xa3\x06", "a field 100 of wire type 3"),
    "deep layers": (DEEP, "no weights"),
    "a wrong shape": (one(shape(2, 4) + floats(W)), "(2, 4) with 6 numbers"),
    "a huge shape": (one(shape(1 << 40, 1 << 40) + floats(W)), "with 6 numbers"),
    "a shape of an overflow": (one(shape(1 << 62, 4, 6) + floats(W)), "with 6 numbers"),
    "a negative shape": (one(shape(-2, -3) + floats(W)), "(-2, -3) with 6"),
    "a shape of -1": (one(shape(-1) + floats(W)), "(-1,) with 6"),
    "a negative older shape": (one(older_shape(-1, -1, 2, 3) + floats(W)), "(-1, -1, 2, 3)"),
    "a shape of 0": (one(shape(0, 1 << 60)), "with 0 numbers"),
    "no shape": (one(floats(W)), "(0, 0, 0, 0) with 6"),
    "no numbers": (one(shape(2, 3)), "(2, 3) with 0 numbers"),
    "33 axes": (one(shape(*33 * [1]) + floats(W[0, :1])), "with 1 numbers"),
    "many axes": (one(shape(*(10**5 * [1])) + floats(W[0, :1])), "with 1 numbers"),
    "many shapes": (one(2000 * shape(*(40 * [1])) + floats(W[0, :1])), "with 1 numbers"),
    "numbers in pieces": (one(shape(2, 3) + floats(W[0]) + floats(W[1])), "several pieces"),
    "dense of 4 axes": (one(shape(2, 1, 1, 3) + floats(W)), "expected 2 axes"),
    "a bias of 2 axes": (
        network(layer(b"fc", "InnerProduct", BLOBS["packed"], BLOBS["packed"])),
        "expected 1 axes",
    ),
    "two layers of one name": (network(NAMED, NAMED), "two blobs 'a.weight'"),
    "a name of no text": (network(layer(b"\xff\n", "ReLU", BLOBS["packed"])), "utf-8"),
    "a name without an end": (network(layer(b"a" * 10**6, "ReLU")), "a name of 1,000,000 bytes"),
    "too many fields": (10**5 * field(4, 1) + WHOLE, "more than 100,000 fields"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(kind, tmp_path):
    content, reason = HOSTILE[kind]
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error, memory(1 << 20):
        caffemodel.read(path)
    message = str(error.value)
    assert reason in message and str(path) in message and "\n" not in message
    assert len(message) < 1000


def test_a_file_cut_anywhere_is_refused(tmp_path):
    """Unless it is cut between two layers."""
    path = tmp_path / "a.caffemodel"
    whole = network(NAMED)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="wrong weights file"):
            caffemodel.read(path)


# Caffe's layers by their definitions in its documentation; maps are [1, H, W, C].

CAFFE_MEAN = {"googlenet": (104, 117, 123)}  # BGR, as train_val.prototxt has it
MEAN_IMAGE = (104.00698793, 116.66876762, 122.67891434)  # BGR, as its examples average the image


def convolved(x, state, name, stride=1, pad=0, group=1):
    """Convolution layer and ReLU."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    kernel, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    parts = zip(np.split(x, group, axis=3), np.split(kernel, group), strict=True)
    maps = [tf.nn.conv2d(part, k.transpose(2, 3, 1, 0), stride, "VALID") for part, k in parts]
    return np.maximum(np.concatenate(maps, axis=3) + bias, 0)


def pooled(x, size, stride, pad=0, function=np.max):
    """Pooling layer: sizes are rounded up, and windows end at the border."""
    length = x.shape[1]
    count = -(-(length + 2 * pad - size) // stride) + 1
    if pad and (count - 1) * stride >= length + pad:
        count -= 1
    begins = [number * stride - pad for number in range(count)]
    windows = [slice(max(begin, 0), min(begin + size, length)) for begin in begins]
    maps = [function(x[:, rows, columns], axis=(1, 2)) for rows in windows for columns in windows]
    return np.stack(maps, axis=1).reshape(1, count, count, -1)


def normalised(x, local_size=5, alpha=1e-4, beta=0.75, k=1.0):
    """LRN layer across channels; images are such that it has an effect."""
    padded = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
    energy = sum(padded[..., i : i + x.shape[3]] for i in range(local_size))
    scale = k + alpha / local_size * energy
    assert scale.mean() > 1.2
    return x / scale**beta


def dense(x, state, name):
    """InnerProduct layer; maps are channels first."""
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1) if x.ndim == 4 else x
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def alexnet(x, state, *, pool_first=False):
    """bvlc_alexnet, or bvlc_reference_caffenet."""
    order = (normalised, lambda x: pooled(x, 3, 2))
    for name, options in (("conv1", {"stride": 4}), ("conv2", {"pad": 2, "group": 2})):
        x = convolved(x, state, name, **options)
        for function in reversed(order) if pool_first else order:
            x = function(x)
    x = convolved(x, state, "conv3", pad=1)
    x = convolved(x, state, "conv4", pad=1, group=2)
    x = pooled(convolved(x, state, "conv5", pad=1, group=2), 3, 2)
    x = np.maximum(dense(x, state, "fc6"), 0)
    x = np.maximum(dense(x, state, "fc7"), 0)
    return {"logits": dense(x, state, "fc8")}


def googlenet(x, state):
    """bvlc_googlenet."""
    x = normalised(pooled(convolved(x, state, "conv1/7x7_s2", stride=2, pad=3), 3, 2))
    x = convolved(convolved(x, state, "conv2/3x3_reduce"), state, "conv2/3x3", pad=1)
    x, outputs = pooled(normalised(x), 3, 2), {}
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        name = f"inception_{module}"
        threes = convolved(x, state, f"{name}/3x3_reduce")
        fives = convolved(x, state, f"{name}/5x5_reduce")
        branches = [
            convolved(x, state, f"{name}/1x1"),
            convolved(threes, state, f"{name}/3x3", pad=1),
            convolved(fives, state, f"{name}/5x5", pad=2),
            convolved(pooled(x, 3, 1, pad=1), state, f"{name}/pool_proj"),
        ]
        x = np.concatenate(branches, axis=3)
        if module in ("3b", "4e"):
            x = pooled(x, 3, 2)
        if module in ("4a", "4d"):
            loss, head = ("loss1", "aux1") if module == "4a" else ("loss2", "aux2")
            y = convolved(pooled(x, 5, 3, function=np.mean), state, f"{loss}/conv")
            y = np.maximum(dense(y, state, f"{loss}/fc"), 0)
            outputs[head] = dense(y, state, f"{loss}/classifier")
    outputs["logits"] = dense(pooled(x, 7, 1, function=np.mean), state, "loss3/classifier")
    return outputs


def nin(x, state):
    """The ImageNet network of Network in Network's authors."""
    x = convolved(x, state, "conv1", stride=4)
    x = convolved(convolved(x, state, "cccp1"), state, "cccp2")
    x = convolved(pooled(x, 3, 2), state, "conv2", pad=2)
    x = convolved(convolved(x, state, "cccp3"), state, "cccp4")
    x = convolved(pooled(x, 3, 2), state, "conv3", pad=1)
    x = convolved(convolved(x, state, "cccp5"), state, "cccp6")
    x = convolved(pooled(x, 3, 2), state, "conv4-1024", pad=1)
    x = convolved(convolved(x, state, "cccp7-1024"), state, "cccp8-1024")
    return {"logits": pooled(x, 6, 1, function=np.mean)[:, 0, 0]}


# Their kernels: outputs, inputs of a group, side; dense ones have no side.

ALEXNET = {
    "conv1": (96, 3, 11),
    "conv2": (256, 48, 5),
    "conv3": (384, 256, 3),
    "conv4": (384, 192, 3),
    "conv5": (256, 192, 3),
    "fc6": (4096, 256 * 6 * 6),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}
NIN = {
    "conv1": (96, 3, 11),
    "cccp1": (96, 96, 1),
    "cccp2": (96, 96, 1),
    "conv2": (256, 96, 5),
    "cccp3": (256, 256, 1),
    "cccp4": (256, 256, 1),
    "conv3": (384, 256, 3),
    "cccp5": (384, 384, 1),
    "cccp6": (384, 384, 1),
    "conv4-1024": (1024, 384, 3),
    "cccp7-1024": (1024, 1024, 1),
    "cccp8-1024": (1000, 1024, 1),
}
MODULES = {  # inputs, and filters as table 1 of GoogLeNet's paper has them
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
GOOGLENET = {
    "conv1/7x7_s2": (64, 3, 7),
    "conv2/3x3_reduce": (64, 64, 1),
    "conv2/3x3": (192, 64, 3),
    "loss1/conv": (128, 512, 1),
    "loss1/fc": (1024, 128 * 4 * 4),
    "loss1/classifier": (1000, 1024),
    "loss2/conv": (128, 528, 1),
    "loss2/fc": (1024, 128 * 4 * 4),
    "loss2/classifier": (1000, 1024),
    "loss3/classifier": (1000, 1024),
}
for key, (inputs, one_, r3, three, r5, five, projection) in MODULES.items():
    GOOGLENET |= {
        f"inception_{key}/1x1": (one_, inputs, 1),
        f"inception_{key}/3x3_reduce": (r3, inputs, 1),
        f"inception_{key}/3x3": (three, r3, 3),
        f"inception_{key}/5x5_reduce": (r5, inputs, 1),
        f"inception_{key}/5x5": (five, r5, 5),
        f"inception_{key}/pool_proj": (projection, inputs, 1),
    }


def weights(kernels):
    """Random weights that keep the scale of the maps from layer to layer."""
    generator, state = np.random.default_rng(0), {}
    for name, (outputs, inputs, *side) in kernels.items():
        lengths = (outputs, inputs, *side, *side)
        kernel = generator.standard_normal(lengths, np.float32)
        kernel *= np.sqrt(2 / np.prod(lengths[1:]), dtype=np.float32)
        state[f"{name}.weight"] = kernel
        state[f"{name}.bias"] = 10 * generator.standard_normal(outputs, np.float32)
    return state


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights by the names of their networks, and the files that they are in."""
    folder, files = tmp_path_factory.mktemp("caffe"), {}
    for names, kernels, form in (
        (("alexnet", "caffenet"), ALEXNET, OLDER),
        (("googlenet",), GOOGLENET, OLDER),
        (("nin",), NIN, PRESENT),
    ):
        state, path = weights(kernels), folder / f"{names[0]}.caffemodel"
        save(path, state, form)
        files |= dict.fromkeys(names, (state, path))
    yield files
    shutil.rmtree(folder)  # 0.3 GB


def images(name):
    size = models.image_size(name)
    return np.random.default_rng(1).integers(0, 256, (1, size, size, 3), np.uint8)


def assert_same_logits(model, outputs, name):
    received = model(images(name).astype(np.float32))
    assert set(received) <= set(outputs)
    for head, logits in received.items():
        largest = np.abs(outputs[head]).max()
        assert 10 < outputs[head].std() < 1000, head
        np.testing.assert_allclose(logits, outputs[head], rtol=0, atol=1e-4 * largest)


CAFFE = {
    "alexnet": alexnet,
    "caffenet": lambda x, state: alexnet(x, state, pool_first=True),
    "googlenet": googlenet,
    "nin": nin,
}


def caffe_outputs(name, state):
    pixels = images(name)[..., ::-1].astype(np.float32)
    return CAFFE[name](pixels - np.float32(CAFFE_MEAN.get(name, MEAN_IMAGE)), state)


@pytest.mark.parametrize("name", caffe.RULES)
def test_the_logits_are_caffes(name, saved):
    state, path = saved[name]
    model = models.pretrained(name, "caffe", file=path)
    assert_same_logits(model, caffe_outputs(name, state), name)


def test_googlenets_heads_are_caffes_where_the_file_has_them(saved):
    state, path = saved["googlenet"]
    weights = published.find("googlenet", str(path))
    model = models.build("googlenet", 1000, aux_heads=True, **weights.options)
    whole, rule = caffemodel.read(path), weights.rule
    deployed = {key: each for key, each in whole.items() if not key.startswith(("loss1", "loss2"))}
    heads = [f"aux{number}_{part}" for number in (1, 2) for part in ("conv", "dense", "fc")]
    assert state_dicts.load(model, deployed, rule.table, bgr=True) == heads
    assert weights.load(model) == []
    assert_same_logits(model, caffe_outputs("googlenet", state), "googlenet")
