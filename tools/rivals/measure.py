"""Measures the rivals: screened on validation scenes, judged on held-out ones, timed on a few.

Every figure is kept under the run that gave it, so settings that do the same are run once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from turbo4d.runtime.plan import Plan
from turbo4d.tools.failures import CallError
from turbo4d.tools.plan_rows import letters
from turbo4d.tools.rivals import state
from turbo4d.tools.rivals.bench import Bench, Judge, Run
from turbo4d.tools.rivals.choice import Point, enough, wanted
from turbo4d.tools.rivals.pareto import row_of
from turbo4d.tools.rivals.setting import Setting, run_key
from turbo4d.tools.rivals.signals import Signals, record
from turbo4d.tools.rivals.state import OURS, UNCACHED
from turbo4d.tools.rivals.sweep import sweep
from turbo4d.tools.timing import alternate

CALIBRATION = (0, 1, 2, 3)  # validation scenes


class Measurement:
    """One file of measurements, and what fills it.

    Args:
        bench: the network.
        path: of the file.
        found: what it holds.
        scenes: held-out ones, by which all is judged.
        screening: validation scenes, by which settings are chosen.
        say: told what is going on.

    Attributes:
        settings: of all rivals, and the plans in the file.
    """

    def __init__(
        self,
        bench: Bench,
        path: Path,
        found: dict[str, Any],
        scenes: Sequence[int],
        screening: Sequence[int],
        say: Callable[[str], None],
    ) -> None:
        self.bench, self.path, self.found = bench, path, found
        self.scenes, self.screening, self.say = scenes, screening, say
        self._references: dict[int, Tensor] = {}
        self._seen = {
            scene: self._see("calibration", scene) for scene in sorted({*CALIBRATION, *screening})
        }
        calibration = [self._seen[scene] for scene in CALIBRATION]
        self.settings = sweep(bench.steps, bench.turbo.regions, calibration)
        for name, plan in found["plans"].items():
            self.settings.append(Setting(OURS, name, plan=Plan.from_json(json.dumps(plan))))

    def _see(self, split: str, scene: int) -> Signals:
        """What the rivals see of a scene, recorded where the file does not hold it."""
        kept: dict[str, Any] = self.found[split]
        if str(scene) not in kept:
            self.say(f"{split}, scene {scene}: uncached")
            held_out = split == "signals"
            asset = (self.bench.held_out if held_out else self.bench.validation)(scene)
            latent, signals = record(self.bench.model, asset, self.bench.steps)
            if held_out:
                self._references[scene] = latent
            kept[str(scene)] = signals.to_json()
            self.save()
        return Signals.from_json(kept[str(scene)])

    def efforts(self) -> dict[str, float]:
        """Name -> expected seconds, the mean over the calibration scenes."""
        scenes = [self._seen[scene] for scene in CALIBRATION]
        return {one.name: self.bench.effort(one, scenes) for one in self.settings}

    def screen(self, efforts: dict[str, float]) -> None:
        """PSNR of each system's settings on the screening scenes, the cheapest first."""
        for scene in self.screening:
            asset, signals = self.bench.validation(scene), self._seen[scene]
            kept: dict[str, float] = self.found["screened"].setdefault(str(scene), {})
            judge: Judge | None = None
            for system in dict.fromkeys(setting.system for setting in self.settings):
                own = [one for one in self.settings if one.system == system and one.plan is None]
                seen: list[float] = []
                for setting in sorted(own, key=lambda one: efforts[one.name]):
                    run = self.bench.run_of(setting, signals)
                    key = run_key(run)
                    if key not in kept:
                        judge = judge or self.bench.judge(asset)
                        kept[key] = judge.of(self.bench.sample(asset, run))
                        self.say(f"validation {scene}, {setting.name}: {kept[key]:.1f} dB")
                        self.save()
                    seen.append(kept[key])
                    if enough(seen):
                        break

    def judge_held_out(self, efforts: dict[str, float]) -> None:
        """PSNR on the held-out scenes of what `wanted` names, until it names nothing."""
        for scene in self.scenes:
            self._see("signals", scene)
        by_name = {setting.name: setting for setting in self.settings}
        while True:
            points = [self._point(setting, efforts[setting.name]) for setting in self.settings]
            chosen = wanted([point for point in points if point.system != OURS])
            chosen += [p.name for p in points if p.system == OURS and p.measured_db is None]
            if not chosen:
                return
            self.say(f"{len(chosen)} settings to judge on {len(self.scenes)} held-out scenes")
            for scene in self.scenes:
                self._judge_scene(scene, [by_name[name] for name in chosen])

    def _judge_scene(self, scene: int, settings: Sequence[Setting]) -> None:
        kept: dict[str, float] = self.found["psnr_db"].setdefault(str(scene), {})
        runs = {run_key(run): run for run in (self.scene_run(scene, one) for one in settings)}
        missing = {key: run for key, run in runs.items() if key not in kept}
        if not missing:
            return
        asset = self.bench.held_out(scene)
        judge = self.bench.judge(asset, self._references.get(scene))
        self._references[scene] = judge.latent
        for index, (key, run) in enumerate(missing.items(), start=1):
            kept[key] = judge.of(self.bench.sample(asset, run))
            self.say(f"scene {scene}, {index} of {len(missing)}, {key}: {kept[key]:.1f} dB")
            self.save()

    def scene_run(self, scene: int, setting: Setting) -> Run:
        """What a setting makes of a held-out scene."""
        return self.bench.run_of(setting, self._see("signals", scene))

    def _point(self, setting: Setting, effort: float) -> Point:
        kept = self.found["screened"]
        screened: list[float] = []
        for scene in self.screening:
            key = run_key(self.bench.run_of(setting, self._seen[scene]))
            screened += [kept[str(scene)][key]] if key in kept[str(scene)] else []
        whole = len(screened) == len(self.screening)
        own = self.psnr_of(setting)
        return Point(
            setting.system,
            setting.name,
            effort,
            mean(screened) if whole else None,
            mean(own) if own else None,
        )

    def psnr_of(self, setting: Setting) -> list[float] | None:
        """PSNR of a setting on each held-out scene; None where one has not been judged."""
        kept = self.found["psnr_db"]
        found: list[float] = []
        for scene in self.scenes:
            key = run_key(self.scene_run(scene, setting))
            if key not in kept.get(str(scene), {}):
                return None
            found.append(kept[str(scene)][key])
        return found

    def time(self, scenes: Sequence[int], runs: int) -> None:
        """Seconds of every setting that was judged, and of the uncached network, in turn.

        Raises:
            CallError: nothing was judged yet, or not a plan of ours.
        """
        if any(str(scene) not in self.found["psnr_db"] for scene in self.scenes):
            raise CallError(
                f"--time-only: {str(self.path)!r} holds no PSNR of all {len(self.scenes)} scenes; "
                "call with --psnr-only first."
            )
        judged = [setting for setting in self.settings if self.psnr_of(setting) is not None]
        for setting in self.settings:
            if setting.system == OURS and setting not in judged:
                raise CallError(
                    f"--time-only: plan {setting.knob!r} has no PSNR; call with --psnr-only first."
                )
        for scene in scenes:
            asset = self.bench.held_out(scene)
            jobs = {UNCACHED: partial(self.bench.uncached, asset)}
            for setting in judged:
                run = self.scene_run(scene, setting)
                jobs.setdefault(run_key(run), partial(self.bench.sample, asset, run))
            kept = self.found["seconds"].get(str(scene), {})
            if all(len(kept.get(key, ())) >= runs for key in jobs):
                continue
            for key, job in jobs.items():
                self.say(f"scene {scene}, warm: {key}")
                job()
            said = partial(self._said, f"scene {scene}")
            timed = alternate(jobs, runs, torch.device("cpu"), said)
            self.found["seconds"][str(scene)] = {
                key: [round(taken, 7) for taken in one.timing.seconds] for key, one in timed.items()
            }
            self.save()

    def _said(self, where: str, text: str) -> None:
        self.say(f"{where}, {text}")

    def rows(self) -> list[dict[str, Any]]:
        """A row for each setting that was judged on every held-out scene."""
        judged = [(setting, self.psnr_of(setting)) for setting in self.settings]
        return [self._row(setting, psnr_db) for setting, psnr_db in judged if psnr_db]

    def _row(self, setting: Setting, psnr_db: Sequence[float]) -> dict[str, Any]:
        runs = {str(scene): self.scene_run(scene, setting) for scene in self.scenes}
        keys = {scene: run_key(run) for scene, run in runs.items()}
        plans = [run for run in runs.values() if isinstance(run, Plan)]
        peaks = [plan.check(self.bench.turbo.regions).peak_bytes for plan in plans]
        return row_of(
            setting.system,
            setting.knob,
            keys,
            psnr_db,
            self.found["seconds"],
            letters=letters(plans[0]) if plans else "C" * setting.steps,
            cache_peak_bytes=max(peaks, default=0),
        )

    def save(self) -> None:
        """Write the file."""
        state.write(self.path, self.found)
