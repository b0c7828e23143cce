"""Bad models and checkpoints: a one-line error, exit status 1, none of their code is run, no unexpected files."""

import io
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import torch
from helpers import make_table, run, write_esc50
from hostile_files import encoded
from model_files import Evil, model
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from danger_safe.core.errors import UserError
from danger_safe.detection.model_file import open_model_file

EXTRACT, PREDICT = "extractEmbeddingCnn14", "predict_danger"
COMPARE, FINETUNE = "compare_models", "finetune_cnn14"

TOO_HIGH = {"scores": np.array([2.0]), "raw_scores": np.array([0.5]), "unconverged": 0}


def one_class():
    """Return a pipeline that was trained on a single label."""
    pipeline = make_pipeline(LogisticRegression()).fit(np.eye(4), [0, 1, 0, 1])
    pipeline[-1].classes_ = np.array([1])
    return pipeline


def test_file_of_another_kind_is_not_opened_as_a_model(tmp_path):
    (tmp_path / "kitchen.wav").write_bytes(pickle.dumps(model()))
    with pytest.raises(UserError, match=r"kitchen\.wav is not a model file \(\*_model\.skops\)"):
        open_model_file(tmp_path / "kitchen.wav")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no model", id="text"),
        pytest.param(pickle.dumps([1, 2, 3]), id="list"),
        pytest.param(pickle.dumps(model())[:200], id="cut"),
        pytest.param(pickle.dumps(model(threshold=None)), id="missing_key"),
        pytest.param(pickle.dumps(model(threshold="abc")), id="threshold_text"),
        pytest.param(pickle.dumps(model(threshold=float("nan"))), id="threshold_nan"),
        pytest.param(pickle.dumps(model(checkpoint="compact")), id="checkpoint_text"),
        pytest.param(pickle.dumps(model(checkpoint={"name": 1, "sha256": 2})), id="checkpoint_numbers"),
        pytest.param(pickle.dumps(model(metrics=[])), id="metrics_list"),
        pytest.param(pickle.dumps(model(threshold=True)), id="threshold_true"),
        pytest.param(pickle.dumps(model(metrics={"model": "x", "min_recall": "abc", "seed": 0})), id="recall_text"),
        pytest.param(pickle.dumps(model(unknown="x")), id="unknown_text"),
        pytest.param(pickle.dumps(model(unknown={"rule": 1, "level": "low"})), id="level_text"),
        pytest.param(pickle.dumps(model(out_of_fold={"scores": "high"})), id="out_of_fold_text"),
        pytest.param(pickle.dumps(model(out_of_fold=TOO_HIGH)), id="out_of_fold_above_one"),
        pytest.param(pickle.dumps(model() | {"pipeline": None}), id="pipeline_none"),
        pytest.param(pickle.dumps(model(pipeline="fit")), id="pipeline_text"),
        pytest.param(pickle.dumps(model(pipeline=make_pipeline(LogisticRegression()))), id="unfitted"),
        pytest.param(pickle.dumps(model(pipeline=one_class())), id="one_class"),
        pytest.param(pickle.dumps(model(dimensions=5)), id="other_dimensions"),
        pytest.param(None, id="folder"),
    ],
)
def test_bad_models_are_explained(refused, tmp_path, content):
    path = tmp_path / "x_model.joblib"
    path.mkdir() if content is None else path.write_bytes(content)
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    (tmp_path / "a.wav").write_bytes(encoded())
    refused(COMPARE, "--embeddings", "t.csv", "--models", path, words=str(path))
    refused(PREDICT, "a.wav", "--model", path, words=str(path))


def test_model_of_another_checkpoint_is_refused(refused, tmp_path):
    make_table(tmp_path / "t.csv", clips=12, dimensions=4)
    joblib.dump(model(checkpoint={"name": "cnn14", "sha256": "0" * 64}), tmp_path / "x_model.joblib")
    refused(COMPARE, "--embeddings", "t.csv", "--models", "x_model.joblib", words="train it again")


# --- checkpoints


@pytest.fixture(scope="module")
def checkpoint(other_checkpoint):
    """Return the content of a valid checkpoint."""
    return torch.load(other_checkpoint, weights_only=True)


def saved(content, share=1.0):
    """Return the first bytes of a checkpoint file."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()[: int(len(file.getvalue()) * share)]


def other_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "no checkpoint")
    return file.getvalue()


def with_settings(**other):
    return lambda content: content | {"settings": content["settings"] | other}


def with_weights(name, change):
    return lambda content: content | {"model": content["model"] | {name: change(content["model"][name])}}


def without_settings(content):
    return {key: value for key, value in content.items() if key != "settings"}


CHECKPOINTS = [
    pytest.param(lambda _: b"", id="empty"),
    pytest.param(lambda _: b"no checkpoint", id="text"),
    pytest.param(lambda _: encoded(), id="sound"),
    pytest.param(lambda _: other_zip(), id="other_zip"),
    pytest.param(lambda content: saved(content, 0.5), id="cut"),
    pytest.param(lambda _: pickle.dumps(Evil()), id="pickled_code"),
    pytest.param(lambda content: content | {"clips": Evil()}, id="code_inside"),
    pytest.param(lambda _: [1, 2], id="list"),
    pytest.param(without_settings, id="no_settings"),
    pytest.param(with_settings(width=10**9), id="width_of_10^9"),
    pytest.param(with_settings(classes=10**9), id="10^9_classes"),
    pytest.param(with_settings(width=None), id="no_width"),
    pytest.param(with_settings(fmax=-1.0), id="no_mel_bank"),
    pytest.param(with_settings(floor=0.0), id="no_floor"),
    pytest.param(with_settings(network="resnet"), id="other_network"),
    pytest.param(with_settings(secret=1), id="other_setting"),
    pytest.param(with_weights("fc1.weight", lambda t: t[:3]), id="other_shape"),
    pytest.param(with_weights("fc1.weight", lambda t: t * float("nan")), id="nan"),
    pytest.param(with_weights("fc1.weight", lambda t: "abc"), id="text_for_weights"),
    pytest.param(with_weights("fc1.weight", lambda t: t[:1, :1].expand(10**6, 10**6)), id="10^12_from_one_number"),
    pytest.param(lambda content: content | {"categories": 5}, id="categories_number"),
    pytest.param(lambda content: content | {"clips": [1]}, id="clips_numbers"),
    pytest.param(lambda content: {"model": {"a": 1}}, id="no_tensors"),
]


@pytest.mark.parametrize("change", CHECKPOINTS)
def test_bad_checkpoints_are_explained(refused, tmp_path, checkpoint, change):
    content = change(checkpoint)
    path = tmp_path / "x.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    folder = write_esc50(
        tmp_path / "esc", [(name, fold, 9 * fold + len(name)) for name in ("dog", "rain") for fold in (1, 2)]
    )
    refused(FINETUNE, "--dataset", folder, "--checkpoint", path, "--output", "y.pth", words=str(path))
    assert not (tmp_path / "ran").exists()


def test_checkpoint_with_code_is_refused_by_extraction(tmp_path):
    """In a new process, because networks are converted in one."""
    for name in ("Danger", "Safe"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(encoded())
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Evil()))
    done = run(
        f"{EXTRACT}.py", "--dataset", tmp_path, "--checkpoint", "code.pth", "--output", "t.csv", cwd=tmp_path, status=1
    )
    assert [line for line in done.stderr.splitlines() if "error: " in line] == done.stderr.splitlines()[-1:]
    assert "is not a checkpoint" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "t.csv").exists()
