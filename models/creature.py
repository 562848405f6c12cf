"""The one category of object in our scenes: an articulated creature of six ellipsoids.

Torso, head, two arms, two legs. A scene fixes proportions, colours and the amplitudes and phases of
a cyclic motion: the creature hops, squashes and stretches, turns a little, nods, waves each arm and
swings its legs.
Every motion has a period of exactly `frames` frames, so an animation loops.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

PARTS = ("torso", "head", "arm_left", "arm_right", "leg_left", "leg_right")
COLOURS = (
    "torso_top",
    "torso_bottom",
    "belly",
    "head",
    "face",
    "cap",
    "arm",
    "hand",
    "leg",
    "boot",
)


@dataclass(frozen=True)
class Creature:
    """What a seed fixes, in radians and scene units (the image spans -1 to 1); RGB in [0, 1]."""

    torso: np.ndarray  # semi-axes x, y, z
    head: np.ndarray  # semi-axes x, y, z
    arm: np.ndarray  # radius, half length
    leg: np.ndarray  # radius, half length
    waist: float  # local height at which the torso changes colour
    colours: dict[str, np.ndarray]
    hop: float
    squash: float
    yaw: float
    nod: float
    swing: float
    arm_centre: np.ndarray  # left, right
    arm_amplitude: np.ndarray
    phases: dict[str, float]

    def moving(self, factor: float) -> "Creature":
        """The same creature with every amplitude of its motion times a factor, 0 or above.

        Raises:
            ValueError: the factor is negative.
        """
        if factor < 0:
            raise ValueError(f"creature: a motion of {factor} is negative; use 0 or above")
        moves = ("hop", "squash", "yaw", "nod", "swing", "arm_amplitude")
        return replace(self, **{name: getattr(self, name) * factor for name in moves})


def _palette(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Ten saturated colours, hues spread over the circle: neighbouring parts never share one."""
    count = len(COLOURS)
    hues = (rng.permutation(count) + rng.uniform(-0.25, 0.25, count)) / count + rng.uniform()
    value = rng.uniform(0.65, 1.0, count)
    saturation = rng.uniform(0.8, 1.0, count)
    sector = (hues[:, None] * 6.0 + np.array([5.0, 3.0, 1.0])) % 6.0
    ramp = np.clip(np.minimum(sector, 4.0 - sector), 0.0, 1.0)
    rgb = value[:, None] * (1.0 - saturation[:, None] * ramp)
    return dict(zip(COLOURS, rgb, strict=True))


def draw_creature(rng: np.random.Generator) -> Creature:
    """Draws one creature; every number comes from `rng`, in this order."""
    return Creature(
        torso=np.array([rng.uniform(0.36, 0.46), rng.uniform(0.40, 0.46), rng.uniform(0.40, 0.48)]),
        head=np.array([rng.uniform(0.30, 0.38), rng.uniform(0.28, 0.33), rng.uniform(0.33, 0.40)]),
        arm=np.array([rng.uniform(0.12, 0.15), rng.uniform(0.24, 0.29)]),
        leg=np.array([rng.uniform(0.15, 0.18), rng.uniform(0.24, 0.28)]),
        waist=rng.uniform(-0.25, 0.25),
        colours=_palette(rng),
        hop=rng.uniform(0.10, 0.17),
        squash=rng.uniform(0.06, 0.14),
        yaw=rng.uniform(0.0, math.radians(15.0)),
        nod=rng.uniform(math.radians(5.0), math.radians(20.0)),
        swing=rng.uniform(math.radians(10.0), math.radians(35.0)),
        arm_centre=rng.uniform(math.radians(-25.0), math.radians(15.0), 2),
        arm_amplitude=rng.uniform(math.radians(35.0), math.radians(60.0), 2),
        phases={
            name: rng.uniform(0.0, 2.0 * math.pi)
            for name in ("hop", "yaw", "nod", "swing", "left", "right")
        },
    )


def _rotation(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] about coordinate axis 0, 1 or 2."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*np.shape(angle), 3, 3))
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[..., axis, axis] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = cos
    matrix[..., first, second], matrix[..., second, first] = -sin, sin
    return matrix


def pose(creature: Creature, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Places the six ellipsoids in every frame.

    Args:
        creature: what the seed fixed.
        frames: F; one motion period.

    Returns:
        centres [F, 6, 3] and axes [F, 6, 3, 3]: world = centre + axes @ local, local on
        the unit sphere. World y is up, the creature faces +z (the camera of view 0).
    """
    c = creature
    clock = 2.0 * math.pi * np.arange(frames) / frames
    wave = {name: np.sin(clock + phase) for name, phase in c.phases.items()}
    centres = np.zeros((frames, len(PARTS), 3))
    axes = np.zeros((frames, len(PARTS), 3, 3))

    leg_radius, leg_length = c.leg
    hip = -0.72 + 1.5 * leg_length
    torso_y = hip + 0.75 * c.torso[1]
    centres[:, 0] = [0.0, torso_y, 0.0]
    axes[:, 0] = np.diag(c.torso)

    nod = _rotation(0, c.nod * wave["nod"])
    neck = np.array([0.0, torso_y + 0.85 * c.torso[1], 0.0])
    centres[:, 1] = neck + nod @ np.array([0.0, 0.75 * c.head[1], 0.05])
    axes[:, 1] = nod @ np.diag(c.head)

    radius, length = c.arm
    for part, side, name in ((2, 1.0, "left"), (3, -1.0, "right")):
        index = 0 if side > 0 else 1
        angle = c.arm_centre[index] + c.arm_amplitude[index] * wave[name]
        turn = _rotation(
            2, side * (angle + math.pi / 2)
        )  # local -y points along the arm, to the hand
        shoulder = np.array([side * 0.80 * c.torso[0], torso_y + 0.50 * c.torso[1], 0.0])
        centres[:, part] = shoulder + turn @ np.array([0.0, -0.80 * length, 0.0])
        axes[:, part] = turn @ np.diag([radius, length, radius])

    for part, side in ((4, 1.0), (5, -1.0)):
        turn = _rotation(0, side * c.swing * wave["swing"])
        centres[:, part] = np.array([side * 0.50 * c.torso[0], hip, 0.0]) + turn @ np.array(
            [0.0, -0.5 * leg_length, 0.0]
        )
        axes[:, part] = turn @ np.diag([leg_radius, leg_length, leg_radius * 1.25])

    tall = 1.0 + c.squash * np.cos(
        clock + c.phases["hop"]
    )  # stretched while rising, squashed while falling
    body = np.zeros((frames, 3, 3))
    body[:, 0, 0] = body[:, 2, 2] = tall**-0.5
    body[:, 1, 1] = tall
    body = body @ _rotation(1, c.yaw * wave["yaw"])
    centres = np.einsum("fij,fpj->fpi", body, centres)
    centres[:, :, 1] += (c.hop * wave["hop"])[:, None] - 0.10
    return centres, body[:, None] @ axes
