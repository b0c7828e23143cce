"""Before step 4, optional: how many false alarms per hour of ordinary sound does each model raise?

    python measure_false_alarms.py
    python measure_false_alarms.py --models logreg_model.skops --minutes 60

In:   audio_embeddings.csv, the sounds that it was made of, and the *_model.skops files trained on it
Out:  rf_operating_point.png, …       false alarms per hour against dangers found, for every threshold
      rf_model.skops, .joblib, rf_metrics.json, …  the same numbers are added, so that predict_danger.py
                                      --max-false-alarms-per-hour can choose a threshold; unknown sounds are told
                                      by their windows from now on
      audio_embeddings_windows.npz    embeddings of the windows, for the next run

The safe sounds of the table are joined, and predict_danger.py's windows slide over them. A new sound every few seconds
is more than most real hours hold. Each model is evaluated by cross-validation, as in training.
Opening a .joblib file can run code that is in it: give only those that you made yourself.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split

from danger_safe.core.commands import command_line
from danger_safe.core.flags import models_parser
from danger_safe.core.ownership import check_overwrite


def main(arguments: list[str]) -> int:
    parser = models_parser(__doc__, "measure")
    parser.add_argument("--minutes", type=cli.number(0.1), default=20.0, metavar="N",
                        help="of safe sounds, joined, in which false alarms are counted")  # fmt: skip
    args = parser.parse_args(arguments)
    with cli.loading_libraries():  # after the flags are checked: pandas, scikit-learn and matplotlib load for seconds
        from danger_safe.detection.model_file import save_model_files
        from danger_safe.embeddings.table import describe_data, read_table
        from danger_safe.embeddings.table_sounds import find_sounds, manifest_warnings, table_checkpoint
        from danger_safe.evaluation.calibration import uncalibrated
        from danger_safe.evaluation.cross_validation import evaluate, table_folds
        from danger_safe.evaluation.novelty_report import add_left_out_categories, summarise_novelty
        from danger_safe.evaluation.report import summarise_windows
        from danger_safe.evaluation.thresholds import RULE_OF_THREE, ThresholdRule
        from danger_safe.evaluation.window_table import embed_windows
        from danger_safe.reports.operating_point_plot import draw_operating_points
        from danger_safe.training import find_models, key_of, load_models, metrics_file, write_metrics

    table = read_table(args.embeddings)
    warnings = manifest_warnings(table)
    files = find_models(args.models, args.output_dir)
    for file in files:
        check_overwrite(args.output_dir / f"{key_of(file)}_operating_point.png")
        for output in (metrics_file(file), file.with_suffix(".joblib"), file.with_suffix(".skops")):
            check_overwrite(output)
    models = load_models(files, table)
    sounds, checkpoint = find_sounds(table, args.dataset), table_checkpoint(table)

    noun = "model" if len(models) == 1 else "models"
    print(f"Measuring {len(models)} {noun} on at most {args.minutes:g} minutes of safe sound", flush=True)
    written = []
    for file, saved in models:
        metrics, title = saved["metrics"], cli.one_line(saved["metrics"]["model"])
        folds, _ = table_folds(table, metrics["seed"])
        windows = embed_windows(table, folds, sounds, checkpoint, args.minutes, args.jobs)
        pipeline, rule = uncalibrated(saved["pipeline"]), ThresholdRule(metrics["min_recall"], metrics["max_threshold"])
        result = evaluate(pipeline, table, rule, metrics["seed"], windows, args.jobs, title=title)
        hourly = summarise_windows(result)
        novelty = add_left_out_categories(summarise_novelty(result), result, pipeline, table)
        metrics |= hourly.as_json() | {"unknown": novelty.as_json()}
        if saved.get("unknown"):
            saved["unknown"]["level"] = novelty.min_similarity
        save_model_files(file.with_suffix(".joblib"), saved)
        write_metrics(file, metrics)
        written.append(args.output_dir / f"{key_of(file)}_operating_point.png")
        draw_operating_points(written[-1], metrics["model"], describe_data(table), metrics)
        print(f"{metrics['model']}: {hourly.estimate.describe()}", novelty.describe(), sep="\n", flush=True)
    minutes = hourly.estimate.minutes
    print(
        f"Measured on {minutes:.1f} minutes of safe sound. Even without a false alarm in them, nothing below "
        f"{60 * RULE_OF_THREE / max(minutes, 1e-9):.1f} per hour would be shown (rule of three): "
        f"to show N per hour takes {RULE_OF_THREE:g}/N hours"
    )
    print(f"Wrote {', '.join(map(str, written))}, and into {', '.join(str(file) for file, _ in models)}")
    print(f"Next: {command_line('predict')} RECORDING --model FILE --max-false-alarms-per-hour N")
    for warning in warnings:
        cli.warn(warning)
    return cli.DONE


if __name__ == "__main__":
    cli.run(main)
