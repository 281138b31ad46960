"""Made-up measurements of a benchmark's rows, with figures whose ratios are easy to tell."""

from mmovseg.errors import UserError

MACHINE = ("cpu", "toy", 2)


def measured(row, device="cpu", *, threads=None):
    """What `measure_row` could answer: a step takes 2 s an image (training 4 s) plus 0.5 s a class beyond six."""
    if row.kind == "matmul":
        rates = {"float32": 100.0, "bfloat16": 10.0}
        return {"gflops": rates, "bfloat16_is_emulated": True, "other_cores": 0.0}
    if row.kind == "operations":
        return {
            "classes": 6,
            "infer": {"per_image": 50e9, "per_class": 1e9},
            "train": {"per_image": 120e9, "per_step": 30e9},
            "by_operator": {},
            "left_out": {"add": 3, "gelu": 1},
        }
    if row.kind == "model":
        settings = row.settings
        each = (2.0 if settings["phase"] == "infer" else 4.0) + 0.5 * (settings["classes"] - 6)
        step = each * settings["batch"]
        peak = 1000.0 + 2 * settings["classes"] + (500 if row.name.endswith("at-once") else 0)
        return {
            "seconds": [step, 1.5 * step, 0.5 * step],
            "peak_mb": peak,
            "matmul_gflops_precision": 100.0,
            "other_cores": 0.0,
        }
    if row.kind in ("loader", "windows", "evaluator"):
        return {"seconds": [0.5, 0.4, 0.6], "images": 8, "pixels": 8_000_000, "other_cores": 1.0}
    if row.kind == "scene":
        spent = {"total": 10.0, "read": 1.0, "model": 5.0, "blend": 1.0, "write": 0.5, "finish": 0.5}
        return {
            "seconds": [10.0, 9.0, 11.0],
            "model_seconds": [5.0, 5.0, 5.0],
            "spent": spent,
            "pixels": 10**6,
            "classes": 7,
            "other_cores": None,
        }
    tricks = {"ours": {"seconds": [1.0, 2.0]}, "plain": {"seconds": [2.0, 5.0]}}
    return {
        "tricks": [
            {"name": name, "part": part, "largest_difference": 2e-7, **tricks}
            for name, part in (("all of these", ""), ("fused attention", "optical_encoder"))
        ],
        "other_cores": 0.0,
    }


def failing(*names):
    """`measured`, but rows of these names fail."""

    def measure(row, device, *, threads=None):
        if row.name in names:
            raise UserError(f"the process that measured '{row.name}' was killed by signal 9")
        return measured(row, device, threads=threads)

    return measure
