#!/usr/bin/env python3
"""Compares hipfire-run with llama.cpp on the same model files: logits first, then decode speed, alternating, in fresh processes.

    bench/compare.py --llama-bin DIR --hipfire target/release/hipfire-run --plan plan.bin --model model.gguf
                     [--plan b.bin --model b.gguf …] [--device cuda:0] [--depth 0,4096] [--runs 5] [--json FILE]

DIR holds llama.cpp's llama-bench and, for the logits, a tool mini-logits (another with --mini-logits PATH) that is called as

    mini-logits -m MODEL -f IDS -o OUT -ngl 99 -fa on

and writes the logits of every id of the text file IDS to OUT, f32 [ids, vocabulary], nothing else. Without one, --no-logits says
that nobody compares them. Correctness comes first: models whose logits differ by more than --nmse, or whose likeliest tokens agree
in less than --agree of the positions, are not timed.

Prints a Markdown table. Exit codes: 0 done, 1 the engines don't agree, 2 wrong arguments or files, 3 a tool failed.
Needs Python 3.8 and nothing else; numpy, if it is there, makes large logits faster.
"""
import argparse
import array
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

try:
    import numpy
except ImportError:
    numpy = None


class Failed(Exception):
    """What ends the comparison, and the exit code."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def tell(text):
    print(text, file=sys.stderr, flush=True)


def run(command, env=None, timeout=1800):
    """Standard output of a command that must succeed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=timeout, check=False)
    except OSError as error:
        raise Failed(3, f"{command[0]} can't be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(3, f"{' '.join(command)} took more than {timeout} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        raise Failed(3, f"{' '.join(command)} ended with {done.returncode}\n{said}")
    return done.stdout.decode(errors="replace")


def read_json(text, what):
    """The first JSON object, or list of objects, in a tool's output (some print other lines around it)."""
    for start, c in enumerate(text):
        if c in "[{":
            try:
                value = json.JSONDecoder().raw_decode(text[start:])[0]
            except ValueError:
                continue
            if isinstance(value, dict) or (value and all(isinstance(item, dict) for item in value)):
                return value
    raise Failed(3, f"{what} printed no JSON:\n{text[-500:]}")


# Logits ---------------------------------------------------------------------------------------------------------------


def npy_rows(path):
    """A NumPy file of f32 [n, vocabulary] as hipfire-run writes it: rows and columns, and where the data begins."""
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:6] != b"\x93NUMPY":
            raise Failed(3, f"{path} is no NumPy file")
        text = file.read(int.from_bytes(head[8:10], "little")).decode("latin1")
    shape = text[text.index("(") + 1 : text.index(")")]
    rows, columns = (int(n) for n in shape.split(",") if n.strip())
    return rows, columns, 10 + int.from_bytes(head[8:10], "little")


def floats(path, offset, rows, columns):
    """Row after row of f32."""
    with open(path, "rb") as file:
        file.seek(offset)
        for row in range(rows):
            data = file.read(4 * columns)
            if len(data) != 4 * columns:
                raise Failed(3, f"{path} ends in row {row} of {rows} with {columns} values each")
            if numpy is not None:
                yield numpy.frombuffer(data, dtype="<f4")
            else:
                values = array.array("f", data)
                if sys.byteorder == "big":
                    values.byteswap()
                yield values


def compare_row(ours, theirs):
    """Sum of squared differences, of squares, whether the likeliest token is the same."""
    if numpy is not None:
        a, b = ours.astype("f8"), theirs.astype("f8")
        if not numpy.isfinite(a).all() or not numpy.isfinite(b).all():
            return math.nan, 1.0, False
        return float(((a - b) ** 2).sum()), float((b * b).sum()), int(a.argmax()) == int(b.argmax())
    error = sum((a - b) * (a - b) for a, b in zip(ours, theirs))
    square = sum(b * b for b in theirs)
    if not math.isfinite(error) or not math.isfinite(square):
        return math.nan, 1.0, False
    return error, square, ours.index(max(ours)) == theirs.index(max(theirs))


def compare_logits(ours, theirs):
    """NMSE of ours (a NumPy file) against theirs (bare f32), part of positions with the same likeliest token, positions."""
    rows, columns, offset = npy_rows(ours)
    if os.path.getsize(theirs) != 4 * rows * columns:
        raise Failed(3, f"{theirs} has {os.path.getsize(theirs)} bytes, not {rows} x {columns} logits: not the same vocabulary?")
    error, square, agree = 0.0, 0.0, 0
    for a, b in zip(floats(ours, offset, rows, columns), floats(theirs, 0, rows, columns)):
        e, s, same = compare_row(a, b)
        error, square, agree = error + e, square + s, agree + same
    return error / square if square else math.nan, agree / rows, rows


def ids_for(vocab, count):
    """Token ids without a pattern, the same for every run."""
    return [(1 + 7919 * i * i + 104729 * i) % vocab for i in range(count)]


def logits(args, plan, model, vocab):
    """What both engines make of the same ids."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        names = {name: os.path.join(folder, name) for name in ("ids", "ours.npy", "theirs.f32")}
        with open(names["ids"], "w", encoding="ascii") as file:
            file.write(" ".join(map(str, ids_for(vocab, args.ids))) + "\n")
        command = [args.hipfire, "logits", plan, "--device", args.device, "--model", model]
        run(command + ["--tokens", names["ids"], "--out", names["ours.npy"]])
        command = [args.mini_logits, "-m", model, "-f", names["ids"], "-o", names["theirs.f32"], "-ngl", str(args.ngl), "-fa", "on"]
        run(command, peer_env(args))
        return compare_logits(names["ours.npy"], names["theirs.f32"])


# Speed ----------------------------------------------------------------------------------------------------------------


def peer_env(args):
    """llama.cpp's libraries lie beside its programs."""
    env = dict(os.environ)
    env["LD_LIBRARY_PATH"] = os.pathsep.join(p for p in [args.llama_bin, env.get("LD_LIBRARY_PATH")] if p)
    return env


def their_speed(args, model, depth):
    """One run of llama-bench: tokens per second, and its report."""
    command = [os.path.join(args.llama_bin, "llama-bench"), "-m", model, "-n", str(args.tokens), "-p", "0", "-r", "1", "-o", "json"]
    command += ["-ngl", str(args.ngl), "-fa", "1"]
    if depth:
        command += ["-d", str(depth)]
    report = read_json(run(command, peer_env(args)), "llama-bench")
    rows = [row for row in report if row.get("n_gen") == args.tokens]
    if not rows:
        raise Failed(3, f"llama-bench did not report {args.tokens} tokens: {report}")
    return float(rows[0]["avg_ts"]), rows[0]


def our_speed(args, plan, model, depth):
    """One run of hipfire-run bench: tokens per second, and its report."""
    command = [args.hipfire, "bench", plan, "--device", args.device, "--model", model, "--json", "-n", str(args.tokens)]
    command += ["--depth", str(depth), "--prompt", "0", "--repeat", "1", "--span", str(args.span), "--sampling", args.sampling]
    report = read_json(run(command), "hipfire-run bench")
    return float(report["decode"][0]["tokens_per_s"]["median"]), report


def speeds(args, plan, model, depth):
    """Both engines in turn, so that whatever drifts drifts for both."""
    ours, theirs, our_report, their_report, reads = [], [], None, None, []
    for turn in range(args.runs):
        for who in ("theirs", "ours") if turn % 2 == 0 else ("ours", "theirs"):
            if who == "ours":
                speed, our_report = our_speed(args, plan, model, depth)
                ours.append(speed)
                reads.append(float(our_report["bandwidth"]["gb_per_s"]["median"]))
            else:
                speed, their_report = their_speed(args, model, depth)
                theirs.append(speed)
        tell(f"  depth {depth}, run {turn + 1} of {args.runs}: ours {ours[-1]:.1f}, llama.cpp {theirs[-1]:.1f} tokens/s")
    return {
        "depth": depth,
        "tokens": args.tokens,
        "ours": ours,
        "theirs": theirs,
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "read_gb_per_s": reads,
        "bytes_per_token": our_report["decode"][0]["bytes_per_token"],
        "our_report": our_report,
        "their_report": their_report,
    }


# Report ---------------------------------------------------------------------------------------------------------------


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def versions(args, results):
    """What was compared with what."""
    lines = [f"- date: {datetime.date.today().isoformat()}"]
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        lines.append(f"- GPU and driver: {run(query, timeout=30).strip().splitlines()[0]}")
    except (Failed, IndexError):
        try:
            with open("/sys/module/amdgpu/version", encoding="ascii") as file:
                lines.append(f"- driver: amdgpu {file.read().strip()}")
        except OSError:
            lines.append(f"- driver: unknown ({os.uname().sysname} {os.uname().release})")
    timed = [speed for result in results for speed in result["speeds"]]
    for key, name in (("their_report", "llama.cpp"), ("our_report", "hipfire-run")):
        found = []
        for speed in timed:
            report = speed[key]
            text = (
                f"build {report.get('build_commit', '?')} ({report.get('build_number', '?')}), {report.get('backends', '?')}, "
                f"{report.get('gpu_info') or report.get('cpu_info', '?')}"
                if key == "their_report"
                else f"{report['hipfire_run']} on {report['device']}, code for {report['arch']}"
            )
            if text not in found:
                found.append(text)
        lines += [f"- {name}: {text}" for text in found]
    for result in results:
        p = result.get("provenance")
        if p:
            compilers = "; ".join(f"{arch}: {compiler}" for arch, compiler in p.get("compilers", []))
            flags = " ".join(p.get("flags", []))
            lines.append(
                f"- {os.path.basename(result['plan'])}: hipc {p['hipc']} {flags}, templates {p['templates'][:12]}, model header "
                f"{p['model_header'][:12]}, {compilers}"
            )
    return lines


def markdown(args, results):
    """The table, then what it was made with."""
    how = f"{args.tokens} tokens, {args.runs} runs each, alternating, in fresh processes: median (least to most)"
    lines = [
        f"Decode, {how}. Reads: a kernel that only reads, in our own runs.",
        "",
        "| model | depth | llama.cpp tokens/s | ours tokens/s | ratio | GB/token | ours GB/s | reads GB/s | of reads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        name = os.path.basename(result["model"])
        for s in result["speeds"]:
            ours, reads = statistics.median(s["ours"]), statistics.median(s["read_gb_per_s"])
            gb = s["bytes_per_token"] / 1e9
            lines.append(
                f"| {name} | {s['depth']} | {spread(s['theirs'])} | {spread(s['ours'])} | {s['ratio']:.3f} | {gb:.3f} | "
                f"{gb * ours:.0f} | {reads:.0f} | {100 * gb * ours / reads:.0f} % |"
            )
    lines += ["", "| model | positions | NMSE of the logits | same likeliest token | |", "|---|---|---|---|---|"]
    for result in results:
        c = result["logits"]
        name = os.path.basename(result["model"])
        if c is None:
            lines.append(f"| {name} | 0 | not compared | not compared | |")
        else:
            verdict = "agree" if c["coherent"] else "**don't agree, not timed**"
            lines.append(f"| {name} | {c['positions']} | {c['nmse']:.2e} | {100 * c['agree']:.1f} % | {verdict} |")
    return "\n".join(lines + [""] + versions(args, results)) + "\n"


def compare(args, plan, model):
    """One model: logits, then speed."""
    tell(f"{os.path.basename(model)}:")
    # A first look at the bundle, which also shows that both can be loaded.
    command = [args.hipfire, "bench", plan, "--device", args.device, "--model", model, "--json", "-n", "1", "--prompt", "0"]
    manifest = read_json(run(command + ["--repeat", "1", "--span", "1"]), "hipfire-run bench")
    result = {"plan": plan, "model": model, "provenance": manifest["provenance"], "logits": None, "speeds": []}
    if not args.no_logits:
        nmse, agree, positions = logits(args, plan, model, manifest["model"]["vocab"])
        coherent = nmse <= args.nmse and agree >= args.agree
        result["logits"] = {"nmse": nmse, "agree": agree, "positions": positions, "coherent": coherent}
        tell(f"  logits of {positions} ids: NMSE {nmse:.2e}, likeliest token the same in {100 * agree:.1f} %")
        if not coherent:
            return result
    result["speeds"] = [speeds(args, plan, model, depth) for depth in args.depth]
    return result


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--llama-bin", required=True, metavar="DIR", help="llama.cpp's programs and libraries")
    add("--hipfire", required=True, metavar="PATH", help="hipfire-run")
    add("--plan", required=True, action="append", metavar="BUNDLE", help="bundle; several, each with its --model")
    add("--model", required=True, action="append", metavar="GGUF", help="the model file of each bundle, in the same order")
    add("--device", default="auto", help="hipfire-run's --device [auto]")
    add("--depth", default="0", metavar="N,…", help="positions in the cache before the first token [0]")
    add("-n", "--tokens", type=int, default=128, help="tokens to generate [128]")
    add("--runs", type=int, default=5, help="runs of each engine [5]")
    add("--sampling", default="greedy", choices=["greedy", "default"], help="our choice of tokens; llama-bench makes none [greedy]")
    add("--span", type=int, default=2048, metavar="MIB", help="working set of our bandwidth test [2048]")
    add("--ngl", type=int, default=99, help="layers that llama.cpp puts on the GPU [99]")
    add("--mini-logits", metavar="PATH", nargs="?", help="tool for llama.cpp's logits [mini-logits in --llama-bin]")
    add("--no-logits", action="store_true", help="don't compare logits")
    add("--ids", type=int, default=32, help="ids whose logits are compared [32]")
    add("--nmse", type=float, default=0.05, help="most that logits may differ [0.05]")
    add("--agree", type=float, default=0.5, help="least part of positions with the same likeliest token [0.5]")
    add("--scratch", metavar="DIR", help="where logits are kept for the moment [the system's temporary folder]")
    add("--json", metavar="FILE", help="everything that was measured")
    args = parser.parse_args(argv)
    if len(args.plan) != len(args.model):
        parser.error(f"{len(args.plan)} bundles and {len(args.model)} models: give each --plan its --model")
    try:
        args.depth = [int(d) for d in args.depth.split(",")]
    except ValueError:
        parser.error("--depth takes numbers with commas between")
    if min(args.depth + [args.runs - 1, args.tokens - 1, args.ids - 1]) < 0:
        parser.error("--runs, --tokens and --ids are at least 1, --depth at least 0")
    args.mini_logits = args.mini_logits or os.path.join(args.llama_bin, "mini-logits")
    needed = [*args.plan, *args.model, os.path.join(args.llama_bin, "llama-bench")] + ([] if args.no_logits else [args.mini_logits])
    for path in needed:
        if not os.path.isfile(path):
            hint = "\n(--no-logits times without comparing)" if path == args.mini_logits else ""
            parser.error(f"there is no file {path}{hint}")
    return args


def main(argv=None):
    args = arguments(argv)
    try:
        results = [compare(args, plan, model) for plan, model in zip(args.plan, args.model)]
    except Failed as error:
        tell(f"error: {error}")
        return error.code
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    sys.stdout.write(markdown(args, results))
    incoherent = [r["model"] for r in results if r["logits"] and not r["logits"]["coherent"]]
    for model in incoherent:
        tell(f"error: the engines don't agree on {model}")
    return 1 if incoherent else 0


if __name__ == "__main__":
    sys.exit(main())
