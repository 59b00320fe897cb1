"""geoseg models show, new, verify: packages on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg.models.catalogue import NetworkKind
    from geoseg.protocols import Model


@click.command("show")
@click.argument("name")
@click.option("--weights", help="Local weight file of a named model.")
@click.option("--json", "as_json", is_flag=True, help="The ModelSpec as JSON.")
@click.option("--stac", is_flag=True, help="The STAC Item with its MLM metadata as JSON.")
@click.option("--no-card", is_flag=True, help="Without the card.")
def show(name: str, weights: str | None, as_json: bool, stac: bool, no_card: bool) -> None:
    """Bands, classes, resolution, files with verified hashes, and card of a model."""
    from pathlib import Path

    from geoseg.models.catalogue import NETWORKS

    if name in NETWORKS and not Path(name).exists():
        _show_network(NETWORKS[name])
        return
    from geoseg.models import load
    from geoseg.models.methods import is_method, method_options

    model = load(name, weights=weights)
    if stac:
        click.echo(_stac(model))
        return
    if as_json:
        click.echo(model.spec.to_json(), nl=False)
        return
    rows = _rows(model)
    folder = _folder(model)
    if folder is not None:
        from geoseg.cli.tables import size_text
        from geoseg.models.package import verify_package

        rows += [
            ("file", f"{each.name}  {size_text(each.size)}  sha256 {each.sha256} (verified)")
            for each in verify_package(folder)
        ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}} {value}")
    if is_method(name):
        chosen = method_options(name)
        click.echo(f"\noptions, as in --model {model.spec.name}:{chosen[0][0]}={chosen[0][1]}")
        for option, default, told in chosen:
            click.echo(f"  {option:<10} {told}  [{default}]")
    if folder is not None and not no_card:
        _show_card(folder)


@click.command("verify")
@click.argument("name")
def verify(name: str) -> None:
    """Check the hashes of a package's files: of a name, or of a folder."""
    from geoseg.cli.tables import size_text
    from geoseg.errors import ModelError
    from geoseg.models import load
    from geoseg.models.package import verify_package

    folder = _folder(load(name))
    if folder is None:
        raise ModelError(
            f"{name} is no package: it has no folder with a spec.json and weights, so there is nothing to verify"
        )
    for each in verify_package(folder):
        click.echo(f"{each.sha256}  {each.name}  {size_text(each.size)}  ok")


@click.command("new")
@click.argument("name")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder that becomes the package.")
@click.option("--network", required=True, help="unet, fcn, segnet, deeplabv3+, ...: `geoseg models list` shows them.")
@click.option("--encoder", help="An encoder of segmentation_models_pytorch, or timm's NAME as tu-NAME.")
@click.option("--bands", required=True, help="Of one date, e.g. red,green,blue,nir.")
@click.option("--classes", required=True, help="E.g. background,field,boundary.")
@click.option(
    "--dates", type=int, default=1, show_default=True, help="Images of these bands that are stacked: 1, 2, 4."
)
@click.option("--weights", help="Of the encoder: a file, or torchgeo's name, e.g. ResNet18_Weights.SENTINEL2_ALL_MOCO.")
@click.option("--weights-file", type=click.Path(dir_okay=False), help="A local copy of named weights.")
@click.option("--resolution", help="Pixel sizes in metres that it is meant for, e.g. 7,15.")
@click.option(
    "--scaling", type=click.Choice(["scene", "fixed"]), default="scene", show_default=True,
    help="By the whole scene's percentiles, or by --mean and --std.",
)  # fmt: skip
@click.option("--units", type=click.Choice(["reflectance", "byte", "raw"]), default="raw", show_default=True,
              help="Of the values that fixed scaling takes.")  # fmt: skip
@click.option("--mean", help="Fixed scaling: one value, or one a band.  [default: 0]")
@click.option("--std", help="See --mean.  [default: 1]")
@click.option("--field-class", help="Class that becomes polygons.  [default: field, or the second]")
@click.option("--patch", type=int, default=512, show_default=True, help="Side in pixels of what it sees.")
@click.option("--halo", type=int, default=64, show_default=True, help="Pixels at each side that are thrown away.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random weights.")
@click.option("--licence", default="", help="Of the weights.")
@click.option("--overwrite", is_flag=True, help="Replace a model in the folder.")
def new(name: str, out: str, **given: Any) -> None:
    """Make a model of a network: random weights, or a pretrained encoder, ready to be trained."""
    from pathlib import Path

    from geoseg.cli.tables import size_text
    from geoseg.models.create import NewModel, create_model
    from geoseg.models.package import count_parameters, verify_package

    overwrite = given.pop("overwrite")
    for key in ("bands", "classes"):
        given[key] = tuple(part.strip() for part in given[key].split(","))
    for key in ("mean", "std", "resolution"):
        text = given.pop(key)
        if text is not None:
            given["resolution_m" if key == "resolution" else key] = _numbers(key, text)
    if given["weights_file"] is not None:
        given["weights_file"] = Path(given["weights_file"])
    model = create_model(NewModel(name=name, **given), Path(out), overwrite=overwrite)
    files = verify_package(model.folder)
    weights = model.folder / files[0].name
    click.echo(
        f"{out}\t{model.spec.title}, {count_parameters(weights) / 1e6:.2f} M parameters, {size_text(files[0].size)}"
    )
    click.echo(f"It has learnt nothing yet. Run it with --model {out}; `geoseg models show {out}` prints its card.")


@click.command("export")
@click.argument("name")
@click.option(
    "-o", "--out", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="FILE.onnx, .xml or .pt2."
)
@click.option(
    "--to",
    type=click.Choice(["onnx", "openvino", "torch-export"]),
    help="What it is to be; default: by the file's suffix.",
)
@click.option("--weights", help="Local weight file of a named model.")
def export(name: str, out: str, to: str | None, weights: str | None) -> None:
    """Write a model's network as a file of another runtime, with its spec beside it."""
    from pathlib import Path

    from geoseg.cli.tables import size_text
    from geoseg.errors import ModelError
    from geoseg.exportation import SUFFIXES, export_model
    from geoseg.models import load
    from geoseg.models.exported import spec_path

    path = Path(out)
    wanted = to or next((known for known, suffix in SUFFIXES.items() if suffix == path.suffix), None)
    if wanted is None:
        raise ModelError(f"{out} ends in none of {', '.join(SUFFIXES.values())}; say with --to what it is to be")
    made = export_model(load(name, weights=weights), path.absolute(), to=wanted)
    click.echo(f"{out}\t{size_text(path.stat().st_size)}  sha256 {made.weights_sha256}")
    click.echo(f"{spec_path(path)}\tits spec; keep both together and run them with --model {out}")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    from geoseg.errors import InputError

    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--{option} {text!r} are no numbers; give e.g. 7,15") from error
    if option == "resolution" and len(found) != 2:
        raise InputError(f"--resolution {text!r} is no range; give the smallest and the largest pixel size, e.g. 7,15")
    return found


def _rows(model: Model) -> list[tuple[str, str]]:
    spec = model.spec
    low, high = spec.resolution_m
    rows = [
        ("name", spec.name),
        ("title", spec.title),
        ("bands", ", ".join(band.name + (" (optional)" if band.optional else "") for band in spec.bands)),
        ("classes", ", ".join(f"{i} {name}" for i, name in enumerate(spec.class_names))),
        ("resolution", "any" if high == float("inf") else f"{low:g} to {high:g} m, made for {spec.nominal_m:g} m"),
        ("scaling", {"scene": "by the whole scene's percentiles", "fixed": f"fixed, {spec.units}"}[spec.scaling]),
        ("patch", f"{spec.patch} px, halo {spec.halo}, stride {spec.stride}"),
        ("licence", spec.licence or "not stated"),
        ("trained on", spec.trained_on or "not stated"),
    ]
    if spec.architecture:
        from geoseg.models.catalogue import settings_of

        kind, settings = str(spec.architecture.get("type", "unknown")), settings_of(spec.architecture)
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        rows.insert(7, ("network", f"{kind} ({told})" if told else kind))
    folder = _folder(model)
    if folder is not None:
        from geoseg.models.bundle import WEIGHTS
        from geoseg.models.package import count_parameters

        rows.append(("parameters", f"{count_parameters(folder / WEIGHTS):,}"))
    rows.append(("fingerprint", model.fingerprint()))
    return rows


def _folder(model: Model) -> Path | None:
    from geoseg.models.bundle import BundleModel

    return model.folder if isinstance(model, BundleModel) else None


def _stac(model: Model) -> str:
    import json

    from geoseg.models.package import read_item, stac_of

    folder = _folder(model)
    item = read_item(folder) if folder is not None else None
    return json.dumps(item or stac_of(model), indent=2, sort_keys=True)


def _show_card(folder: Path) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from geoseg.models.package import read_card

    card, console = read_card(folder), Console(highlight=False)
    if card is None:
        return
    click.echo()
    if console.is_terminal:
        console.print(Markdown(card))
    else:
        click.echo(card, nl=False)


def _show_network(kind: NetworkKind) -> None:
    settings = ", ".join(f"{name} {value}" for name, value in kind.settings.items())
    words = (
        f"my-{kind.name.strip('+')} -o FOLDER --network {kind.name} --bands red,green,blue --classes background,field"
    )
    for label, value in (
        ("network", kind.name),
        ("what", kind.title),
        ("encoder", f"{kind.encoder} or another ({', '.join(kind.encoders)})" if kind.encoder else "its own"),
        ("settings", settings or "none"),
        ("stride", f"{kind.stride}: patches and halos are multiples of it"),
        ("weights", "none; make a model of it:"),
        ("", f"geoseg models new {words}"),
    ):
        click.echo(f"{label:<9} {value}")
