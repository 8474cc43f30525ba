"""People's own images: from a picture to its nuclei, and from a folder to files that other programs open."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei.arrays import LabelMap
from nuclei.devices import choose_device
from nuclei.errors import UserError
from nuclei.inference.weights import Weights, find_best, find_files, load_weights
from nuclei.io import microscopy
from nuclei.io.decoder import Decoder
from nuclei.io.files import sha256
from nuclei.io.picture import DISK_FULL, MAX_PIXELS, Channel, Picture, Reading, printable
from nuclei.progress import Progress, bar_fits, format_duration
from nuclei.segmentation import exports, results
from nuclei.segmentation.array_input import read_array
from nuclei.segmentation.filters import leave_out, read_area
from nuclei.segmentation.plane import segment_plane
from nuclei.segmentation.results import Record, Source, SummaryRow
from nuclei.segmentation.results_page import write_page
from nuclei.segmentation.settings import Mode, Settings, check_out

log = logging.getLogger(__name__)

_ENORMOUS = 2**24
"""Pixels of a plane from which on its file waits until all others are done."""
_TRIAL = 128
_SAID = 5
"""Files of a kind that are named in the log; summary.csv has all."""


def segment(
    image: npt.NDArray[Any] | Path | str,
    weights: Path | str | None = None,
    channel: Channel | None = None,
    device: str = "auto",
    scale: float = 1.0,
    min_area: float | str | None = None,
    max_area: float | str | None = None,
    keep_fibres: bool = False,
    pixel_size: float | None = None,
    mode: Mode = "fast",
) -> LabelMap:
    """Label map (H, W) int32 of an image, 0 background and 1..N nuclei.

    `image` is (H, W), (H, W, 3) or (H, W, 4) of any type of numbers, or the path of a file with one
    plane. `channel` counts from 1; with it an array may have any number of channels, the last axis.
    `weights` are a file or folder of them, or the card of an ensemble (.json); absent, those with
    the best score that come with the project. The other settings are those of `Settings`.

    Raises:
        UserError: an image that cannot be read or has another shape; several planes; no weights; a
            setting that is impossible.
    """
    settings = Settings(
        channel,
        pixel_size,
        device,
        scale=scale,
        mode=mode,
        min_area=min_area,
        max_area=max_area,
        keep_fibres=keep_fibres,
    )
    picture = settings.with_pixel_size(_read_one(image, settings))
    for warning in picture.doubts:
        log.warning("%s", warning)
    limits = settings.area_limits(picture.pixel_size)
    loaded = _load(weights, settings)
    label_map, _ = segment_plane(picture.pixels, loaded, None, picture.outside, settings.scale)
    leave_out(label_map, *limits, settings.keep_fibres)
    return np.array(label_map)


def _read_one(image: npt.NDArray[Any] | Path | str, settings: Settings) -> Picture:
    """An array, or the only plane of a file."""
    reading = Reading(settings.channel, settings.max_pixels)
    if isinstance(image, Path | str):
        planes = list(microscopy.read_pictures(Path(image), Path(image).stem, reading))
        if len(planes) > 1:
            raise UserError(
                f"{image}: a stack of {len(planes)} planes; give one as an array, or use segment_folder"
            )
        return planes[0]
    return read_array(image, settings.channel)


def _load(weights: Path | str | None, settings: Settings) -> Weights:
    path = Path(weights) if weights is not None else find_best()
    device = choose_device(settings.device)
    if settings.mode == "best":
        return load_weights(path, device)
    from nuclei.inference.fast import make_fast

    return make_fast(load_weights(find_files(path)[0], device))


@dataclass
class _Job:
    """A file to be segmented, with what its header says, or why that cannot be read."""

    name: str
    path: Path
    source: Source
    survey: microscopy.Survey | None = None
    error: str = ""


@dataclass
class _Run:
    """One run over a folder: what does not change from file to file, and what came out so far."""

    out: Path
    folder: Path
    settings: Settings
    weights: Weights
    records: dict[str, Record]
    decoder: Decoder
    scratch: Path
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons by the name of the file's results."""
    doubts: list[str] = field(default_factory=list)
    """Planes that may be no pictures of nuclei, and why."""

    @property
    def reading(self) -> Reading:
        return Reading(self.settings.channel, self.settings.max_pixels, self.scratch)


def segment_folder(
    images: Path | str,
    out: Path | str,
    weights: Path | str | None = None,
    channel: Channel | None = None,
    pixel_size: float | None = None,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    scale: float = 1.0,
    fast: bool | None = None,
    min_area: float | str | None = None,
    max_area: float | str | None = None,
    keep_fibres: bool = False,
    mode: Mode = "fast",
) -> list[SummaryRow]:
    """Segments the pictures of a folder (or one file) and returns their rows of `<out>/summary.csv`, one a plane.

    Each plane gets labels/*.tif, geojson/*.geojson, rois/*.zip, measurements/*.csv, overlays/*.png,
    and each file, last, records/*.json, which says from what they were made: a later call does only
    what is missing or has changed. index.html shows all of them. The settings are those of
    `Settings`; `fast`, of earlier versions, is `mode` fast or best.

    Raises: UserError: no pictures, no weights, an impossible setting, a full disk; at the end, when
        all others are done,
            the files that failed and why.
    """
    images, out = Path(images), Path(out)
    if fast is not None:
        mode = "fast" if fast else "best"
    settings = Settings(channel, pixel_size, device, max_pixels, scale, mode, min_area, max_area, keep_fibres)
    found = microscopy.find_pictures(images)
    check_out(out, images)
    loaded = _load(weights, settings)
    with results.open_scratch(out) as scratch, Decoder() as decoder:
        run = _Run(out, images, settings, loaded, results.read_records(out), decoder, scratch)
        jobs = [_make_job(run, name, path) for name, path in found.pictures.items()]
        sources = {job.name: job.source for job in jobs}
        for line in results.describe_replaced(run.records, sources, _folder_of(images)):
            log.warning("%s: %s", printable(out), line)
        _work(run, jobs)
    return _finish(run, found, jobs)


def _make_job(run: _Run, name: str, path: Path) -> _Job:
    settings = run.settings
    try:
        digest, error = sha256(path), ""
    except OSError as problem:
        digest, error = "", f"cannot be read ({problem.strerror})"
    source = Source(
        file=printable(path.name),
        sha256=digest,
        weights=run.weights.digest,
        channel=settings.channel,
        pixel_size=settings.pixel_size,
        scale=settings.scale,
        min_area=str(read_area(settings.min_area, "MIN_AREA") or ""),
        max_area=str(read_area(settings.max_area, "MAX_AREA") or ""),
        keep_fibres=settings.keep_fibres,
        mode=settings.mode,
    )
    return _Job(name, path, source, error=error)


def _folder_of(images: Path) -> Path:
    return images if images.is_dir() else images.parent


def _work(run: _Run, jobs: list[_Job]) -> None:
    """Segments the files that are not done yet, those with enormous planes last."""
    todo = [job for job in jobs if not results.is_done(run.records.get(job.name), job.source, run.out)]
    if len(todo) < len(jobs):
        log.info("%d of %d files are done already", len(jobs) - len(todo), len(jobs))
    for job in todo:
        _survey(run, job)
    readable = [job for job in todo if job.survey is not None]
    if readable:
        _announce(run, readable)
    readable.sort(key=lambda job: (_largest(job) > _ENORMOUS) * _largest(job))
    begin, total, passed = time.monotonic(), sum(_pixels(job) for job in readable), 0
    with Progress("segment", "files", len(readable), summary=False, shown=bar_fits()) as progress:
        for number, job in enumerate(readable, start=1):
            _attempt(run, job, number - 1, len(readable))
            passed += _pixels(job)
            progress.update()
            if not progress.shown:
                left = (time.monotonic() - begin) * (total - passed) / max(1, passed)
                name, rest = job.source.file, format_duration(left)
                log.info("%d of %d: %s; %s left", number, len(readable), name, rest)


def _largest(job: _Job) -> int:
    return job.survey.largest if job.survey else 0


def _pixels(job: _Job) -> int:
    return job.survey.pixels if job.survey else 0


def _survey(run: _Run, job: _Job) -> None:
    """Reads a file's headers, or notes that it fails."""
    try:
        if not job.error:
            job.survey = run.decoder.survey(job.path, run.reading)
    except UserError as error:
        job.error = _without_path(error, job.path)
    if job.error:
        _fail(run, job, job.error, [])


def _announce(run: _Run, jobs: list[_Job]) -> None:
    """Says how many planes of what kind there are, with which weights, and about how long it will take."""
    formats: dict[str, int] = {}
    for job in jobs:
        assert job.survey is not None
        formats[job.survey.format] = formats.get(job.survey.format, 0) + job.survey.planes
    kinds = ", ".join(f"{planes} {name}" for name, planes in sorted(formats.items()))
    planes, pixels = sum(formats.values()), sum(_pixels(job) for job in jobs)
    predictors = run.weights.predictors
    log.info("%d planes in %d files (%s), %.1f million pixels", planes, len(jobs), kinds, pixels / 1e6)
    trial = np.random.default_rng(0).integers(0, 255, (_TRIAL, _TRIAL), np.uint8)
    begin = time.monotonic()
    predictors[0](trial)
    seconds = (time.monotonic() - begin) * len(predictors) * pixels * run.settings.scale**2 / _TRIAL**2
    log.info("weights %s, networks: %d; about %s", run.weights.path, len(predictors), format_duration(seconds))


def _attempt(run: _Run, job: _Job, done: int, total: int) -> None:
    """Segments a file; if it fails, notes why and keeps the planes that were done.

    Raises:
        UserError: the disk is full.
    """
    rows: list[SummaryRow] = []
    made: list[str] = []
    try:
        for picture in run.decoder.read(job.path, job.name, run.reading):
            row, files = _segment_picture(run, job, picture)
            rows.append(row)
            made += files
        _record(run, job, rows, made, complete=True)
    except (UserError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise UserError(
                f"{printable(run.out)}: the disk is full; {done} of {total} files of this run are done. Free some "
                "space and run the same command again, it goes on from there"
            ) from error
        _fail(run, job, _without_path(error, job.path), rows)
        if rows:
            _record(run, job, rows, made, complete=False)


def _without_path(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{printable(path)}: ") or type(error).__name__


def _fail(run: _Run, job: _Job, reason: str, rows: list[SummaryRow]) -> None:
    partly = f" (after {len(rows)} planes, which are done)" if rows else ""
    run.failed[job.name] = f"{reason}{partly}"
    log.warning("failed: %s: %s", job.source.file, run.failed[job.name])


def _record(run: _Run, job: _Job, rows: list[SummaryRow], made: list[str], complete: bool) -> None:
    folder = printable(_folder_of(run.folder).resolve())
    record = Record(folder=folder, source=job.source, rows=rows, made=made, complete=complete)
    results.write_record(run.out, job.name, record, run.records.get(job.name))
    run.records[job.name] = record


def _segment_picture(run: _Run, job: _Job, picture: Picture) -> tuple[SummaryRow, list[str]]:
    """Writes all files of a plane and returns its row and their paths."""
    picture = run.settings.with_pixel_size(picture)
    run.doubts += [f"{picture.name}: {doubt}" for doubt in picture.doubts]
    limits = run.settings.area_limits(picture.pixel_size)
    label_map, _ = segment_plane(picture.pixels, run.weights, run.scratch, picture.outside, run.settings.scale)
    count, left_out = leave_out(label_map, *limits, run.settings.keep_fibres)
    made = exports.export_plane(picture, label_map, count, run.out)
    size = picture.pixel_size
    row = SummaryRow(
        image=picture.name,
        file=job.source.file,
        plane=picture.plane,
        height=label_map.shape[0],
        width=label_map.shape[1],
        nuclei=count,
        pixel_size_um=size.x if size else None,
        pixel_size_y_um=size.y if size else None,
        left_out=left_out.total,
        notes="; ".join([*picture.notes, *left_out.describe()]),
    )
    return row, made


def _finish(run: _Run, found: microscopy.Found, jobs: list[_Job]) -> list[SummaryRow]:
    """Writes summary and page of all that lies in the folder.

    Raises:
        UserError: files failed.
    """
    done = [row for job in jobs for row in _rows_of(run, job)]
    failed = [
        SummaryRow(file=job.source.file, status="failed", notes=run.failed[job.name])
        for job in jobs
        if job.name in run.failed
    ]
    aside = [SummaryRow(file=name, status="left aside", notes=reason) for name, reason in found.left_aside]
    aside = [
        row for row in aside if row.file != run.out.name or run.out.parent.resolve() != run.folder.resolve()
    ]
    earlier = results.earlier_rows(run.records, [job.name for job in jobs])
    rows = [*done, *earlier, *failed, *aside]
    results.write_summary(run.out / "summary.csv", rows)
    write_page(run.out, rows)
    if aside:
        log.info(
            "left aside: %d entries, %s",
            len(aside),
            "; ".join(f"{row.file}: {row.notes}" for row in aside[:_SAID]),
        )
    if run.doubts:
        more = f"; and {len(run.doubts) - _SAID} more, see summary.csv" if len(run.doubts) > _SAID else ""
        log.warning("look at these: %s%s", "; ".join(run.doubts[:_SAID]), more)
    unknown = results.find_unknown(run.out, run.records)
    if unknown:
        log.warning(
            "%s: %d files there are of no finished run, such as %s",
            run.out,
            len(unknown),
            unknown[0],
        )
    log.info(
        "results: open %s in a browser; summary.csv has a line for each plane",
        run.out / "index.html",
    )
    if failed:
        reasons = "\n  ".join(f"{row.file}: {row.notes}" for row in failed)
        raise UserError(
            f"{len(failed)} of {len(jobs)} files failed, the others are in {printable(run.out)}:\n  {reasons}\n"
            "repair or remove them and run the same command again; it does only what is missing"
        )
    return done


def _rows_of(run: _Run, job: _Job) -> Iterator[SummaryRow]:
    """Rows of a file's planes that are results of its present content."""
    record = run.records.get(job.name)
    if record is not None and record.source == job.source:
        yield from record.rows
