"""What predictions say: against scikit-learn, by hand, and in simulations."""

import math

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from report import scores

NAMES = ["ant", "bee", "cat"]


def predictions(probabilities, labels, names=NAMES):
    logs = np.log(np.asarray(probabilities, np.float32))
    files = [f"{number}.jpg" for number in range(len(labels))]
    return scores.Predictions(logs, np.asarray(labels, np.int32), files, names)


def drawn(count=500, classes=7, sharpness=1.0, seed=0):
    """Calibrated predictions: labels are drawn from their probabilities; then logits are scaled."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=[count, classes]) * 2
    chances = scipy.special.softmax(logits, axis=1)
    labels = [random.choice(classes, p=row) for row in chances]
    logs = scipy.special.log_softmax(sharpness * logits, axis=1).astype(np.float32)
    names = [f"class {number}" for number in range(classes)]
    return scores.Predictions(logs, np.int32(labels), list(map(str, range(count))), names)


def test_accuracies_and_classes_are_scikit_learns():
    found = drawn()
    chances = np.exp(found.log_probabilities)
    for k in (1, 5):
        expected = sklearn.metrics.top_k_accuracy_score(found.labels, chances, k=k)
        assert scores.fraction(found.in_top(k)).value == pytest.approx(expected)
    report = sklearn.metrics.classification_report(
        found.labels, found.predicted, target_names=found.class_names, output_dict=True
    )
    *rows, mean = scores.per_class(found)
    for row in rows:
        expected = report[row["class"]]
        assert row["examples"] == expected["support"]
        for mine, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert row[mine] == pytest.approx(expected[theirs])
    assert mean["f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert scores.loss(found) == pytest.approx(sklearn.metrics.log_loss(found.labels, chances))


def test_what_was_taken_for_what():
    found = predictions(
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0001], [0.6, 0.2, 0.2]], [0, 0, 0, 2]
    )
    assert scores.confusion(found).tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert scores.confusions(found, 5) == [("ant", "bee", 2), ("cat", "ant", 1)]
    assert scores.confusions(found, 1) == [("ant", "bee", 2)]
    assert scores.mistakes(found, 2) == [2, 1]  # the surest first
    *_, mean = scores.per_class(found)
    assert mean["recall"] == pytest.approx((1 / 3 + 0) / 2)  # no bee occurs


def test_intervals_hold_the_true_value():
    """Of 95 % intervals about 95 % do."""
    random = np.random.default_rng(1)
    for truth, count in ((0.9, 200), (0.5, 60), (0.99, 300)):
        held = 0
        for _ in range(1000):
            found = scores.fraction(random.random(count) < truth)
            held += found.low <= truth <= found.high
        assert 925 <= held <= 975, (truth, count, held)


def test_the_calibration_error_by_hand():
    """Bins of 1/15: two at 0.9 of which one is right, two at 0.55 of which both are."""
    found = predictions(
        [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.55, 0.4, 0.05], [0.55, 0.4, 0.05]], [0, 1, 0, 0]
    )
    assert scores.calibration_error(found) == pytest.approx((2 * 0.4 + 2 * 0.45) / 4, abs=1e-6)
    bins = scores.reliability(found)
    assert [each.examples for each in bins if each.examples] == [2, 2]
    assert scores.calibration_error(predictions([[1.0, 1e-9, 1e-9]], [0])) < 1e-6


@pytest.mark.parametrize("sharpness", [0.4, 2.5])
def test_the_temperature_undoes_what_was_done_to_the_logits(sharpness):
    found, other = drawn(4000, sharpness=sharpness), drawn(4000, sharpness=sharpness, seed=9)
    temperature = scores.temperature(found)
    assert temperature == pytest.approx(sharpness, rel=0.06)
    for each in (found, other):  # also where it was not fitted
        after = each.at(temperature)
        assert scores.calibration_error(after) < 0.5 * scores.calibration_error(each)
        assert scores.loss(after) < scores.loss(each)
        np.testing.assert_array_equal(after.predicted, each.predicted)


def test_an_ensemble_is_the_mean_of_its_members():
    members = [drawn(sharpness=sharpness) for sharpness in (0.5, 1.0, 3.0)]
    mean = np.mean([np.exp(member.log_probabilities) for member in members], axis=0)
    together = scores.ensemble(members)
    np.testing.assert_allclose(np.exp(together.log_probabilities), mean, atol=1e-6)


def test_two_networks_are_compared_where_they_differ():
    right, wrong = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    first = predictions([right] * 10 + [wrong] * 2, [0] * 12)
    second = predictions([right] * 3 + [wrong] * 7 + [right, wrong], [0] * 12)
    found = scores.compare(first, second)
    assert (found.only_first, found.only_second) == (7, 1)
    one_side = sum(math.comb(8, k) for k in (0, 1)) / 2**8
    assert found.p_value == pytest.approx(2 * one_side)
    assert scores.compare(first, first) == (0, 0, 1.0)


def test_different_images_are_not_compared():
    first = predictions([[0.8, 0.1, 0.1]], [0])
    second = predictions([[0.8, 0.1, 0.1]], [1])
    for function in (scores.compare, lambda *both: scores.ensemble(both)):
        with pytest.raises(ValueError, match="different images"):
            function(first, second)


def test_predictions_are_written_and_read(tmp_path):
    found, path = drawn(), tmp_path / "predictions.npz"
    scores.save(found, path)
    again = scores.load(path)
    np.testing.assert_array_equal(again.log_probabilities, found.log_probabilities)
    assert (list(again.filenames), list(again.class_names)) == (
        list(found.filenames),
        list(found.class_names),
    )
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged"):
        scores.load(path)
