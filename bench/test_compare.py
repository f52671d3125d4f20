"""Tests of compare.py: python3 -m unittest discover bench

With HIPFIRE_RUN, HIPFIRE_PLAN and HIPFIRE_MODEL set (cargo test does), a whole comparison on the CPU, in which stand-ins take the
place of llama.cpp's programs: a llama-bench that prints a report, and a mini-logits that asks for our exact logits.
"""
import array
import io
import json
import math
import os
import stat
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare  # noqa: E402

LLAMA_BENCH = """#!/usr/bin/env python3
import json, os, sys
args = sys.argv[1:]
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(json.dumps(args) + "\\n")
if os.environ.get("FAKE_FAIL"):
    sys.exit("no such device")
n = int(args[args.index("-n") + 1])
print("some driver says hello [1]" if os.environ.get("FAKE_CHATTER") else "")
print(json.dumps([{"n_gen": n, "avg_ts": 100.0, "build_commit": "abc", "build_number": 7, "backends": "FAKE", "gpu_info": "none"}]))
"""

MINI_LOGITS = """#!/usr/bin/env python3
import os, subprocess, sys
args = sys.argv[1:]
value = lambda name: args[args.index(name) + 1]
out = value("-o")
npy = out + ".npy"
subprocess.run([os.environ["HIPFIRE_RUN"], "logits", os.environ["HIPFIRE_PLAN"], "--exact", "--model", value("-m"),
                "--tokens", value("-f"), "--out", npy], check=True, stderr=subprocess.DEVNULL)
data = open(npy, "rb").read()
data = data[10 + int.from_bytes(data[8:10], "little"):]
if os.environ.get("FAKE_WRONG"):
    data = data[4:] + data[:4]
open(out, "wb").write(data)
"""


def write_npy(path, rows):
    shape = f"({len(rows)}, {len(rows[0])})"
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    head = head.ljust(117) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode())
        for row in rows:
            file.write(array.array("f", row).tobytes())


class Logits(unittest.TestCase):
    ROWS = [[1.0, 2.0, 3.0], [4.0, -5.0, 6.0]]

    def compare(self, theirs, numpy):
        kept, compare.numpy = compare.numpy, numpy
        self.addCleanup(setattr, compare, "numpy", kept)
        with tempfile.TemporaryDirectory() as folder:
            a, b = os.path.join(folder, "a"), os.path.join(folder, "b")
            write_npy(a, self.ROWS)
            with open(b, "wb") as file:
                for row in theirs:
                    file.write(array.array("f", row).tobytes())
            return compare.compare_logits(a, b)

    def both(self, theirs):
        results = [self.compare(theirs, numpy) for numpy in {None, compare.numpy}]
        for result in results[1:]:
            self.assertEqual(str(results[0]), str(result))
        return results[0]

    def test_equal(self):
        self.assertEqual(self.both(self.ROWS), (0.0, 1.0, 2))

    def test_different(self):
        nmse, agree, rows = self.both([[1.0, 2.0, 1.0], [4.0, -5.0, 6.0]])
        self.assertEqual((nmse, agree, rows), (4.0 / (6.0 + 77.0), 0.5, 2))

    def test_not_a_number(self):
        nmse, agree, _ = self.both([[1.0, 2.0, math.nan], [4.0, -5.0, 6.0]])
        self.assertTrue(math.isnan(nmse) and agree == 0.5)

    def test_another_vocabulary(self):
        with self.assertRaises(compare.Failed):
            self.compare([[1.0, 2.0], [3.0, 4.0]], compare.numpy)


class Json(unittest.TestCase):
    def test_lines_around_it(self):
        self.assertEqual(compare.read_json('[x] hello [7] {\n[{"a": 1}]\nbye', "it"), [{"a": 1}])
        with self.assertRaises(compare.Failed):
            compare.read_json("nothing", "it")


@unittest.skipUnless("HIPFIRE_RUN" in os.environ, "no hipfire-run named in HIPFIRE_RUN")
class WholeComparison(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.log = os.path.join(self.folder.name, "log")
        for name, text in (("llama-bench", LLAMA_BENCH), ("mini-logits", MINI_LOGITS)):
            path = os.path.join(self.folder.name, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def run_it(self, *more, env=()):
        for name, value in [("FAKE_LOG", self.log), *env]:
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name, None)
        plan, model = os.environ["HIPFIRE_PLAN"], os.environ["HIPFIRE_MODEL"]
        args = ["--llama-bin", self.folder.name, "--hipfire", os.environ["HIPFIRE_RUN"], "--plan", plan, "--model", model]
        args += ["--device", "cpu", "--runs", "2", "-n", "3", "--span", "4", "--ids", "6", *more]
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = compare.main(args)
        return code, out.getvalue(), err.getvalue()

    def calls(self):
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def test_agreeing(self):
        result = os.path.join(self.folder.name, "result.json")
        code, out, err = self.run_it("--depth", "0,16", "--json", result, env=[("FAKE_CHATTER", "1")])
        self.assertEqual(code, 0, err)
        for part in ("| 100.0 (100.0 to 100.0) |", "| agree |", "build abc (7), FAKE", "- date: ", "templates "):
            self.assertIn(part, out)
        with open(result, encoding="utf-8") as file:
            (model,) = json.load(file)
        self.assertEqual([s["depth"] for s in model["speeds"]], [0, 16])
        self.assertTrue(0 < model["logits"]["nmse"] < 0.05 and model["logits"]["positions"] == 6)
        for s in model["speeds"]:
            self.assertEqual((len(s["ours"]), len(s["theirs"]), s["tokens"]), (2, 2, 3))
            self.assertAlmostEqual(s["ratio"], sum(s["ours"]) / 2 / 100)
        calls = self.calls()
        self.assertEqual(len(calls), 4)
        self.assertTrue(all(c[c.index("-r") + 1] == "1" and c[c.index("-p") + 1] == "0" for c in calls))
        self.assertEqual(["-d" in c for c in calls], [False, False, True, True])

    def test_two_models(self):
        plan, model = os.environ["HIPFIRE_PLAN"], os.environ["HIPFIRE_MODEL"]
        code, out, err = self.run_it("--no-logits", "--plan", plan, "--model", model)
        self.assertEqual((code, out.count("not compared | not compared")), (0, 2), err)

    def test_disagreeing_models_are_not_timed(self):
        code, out, err = self.run_it(env=[("FAKE_WRONG", "1")])
        self.assertEqual(code, 1, err)
        self.assertIn("don't agree", out)
        self.assertFalse(os.path.exists(self.log))

    def test_a_tool_that_fails(self):
        code, out, err = self.run_it("--no-logits", env=[("FAKE_FAIL", "1")])
        self.assertEqual((code, out), (3, ""))
        self.assertIn("no such device", err)

    def test_wrong_arguments(self):
        for more in (["--depth", "x"], ["--plan", "lonely"], ["--model", "nowhere", "--plan", "nowhere"], ["--runs", "0"]):
            with self.assertRaises(SystemExit) as caught:
                self.run_it(*more)
            self.assertEqual(caught.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
