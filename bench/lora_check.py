#!/usr/bin/env python3
"""Compares a LoRA adapter as cmc and as llama.cpp apply it: greedy text and the log-probability of each of its tokens.

    bench/lora_check.py --cmc ./cmc --server llama-server --base BASE.gguf --lora ADAPTER.gguf [--tokens N] [--prompts FILE]

The base is first written anew in float32 by `cmc merge` with the adapter at scale 0, so that neither program rounds what it
multiplies and the comparison is of the adapter, not of activation kernels; `--as-is` takes the base as it is stored.
A third column is the model with the adapter merged in, run by llama.cpp. Exit status 0: the texts agree and the largest
difference of a log-probability is below --bound.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PROMPTS = ["The capital of France is", "Once upon a time there was a", "def fibonacci(n):", "Water boils at",
           "Question: Why is the sky blue?\nAnswer:"]


class Server:
    """llama-server on a free port of this machine."""

    def __init__(self, program, model, extra, threads):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = tempfile.TemporaryFile("w+")
        command = [program, "-m", model, "--host", "127.0.0.1", "--port", str(self.port), "-t", str(threads), "-c", "1024",
                   "-np", "1", "--no-webui", "-ctk", "f32", "-ctv", "f32", "-fa", "off"] + extra
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        self.log.seek(0)
        sys.exit("llama-server did not start:\n" + self.log.read()[-2000:])

    def complete(self, prompt, tokens):
        """Greedy: ids, text, and each token's log-probability."""
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": 1, "cache_prompt": False,
                "samplers": ["temperature"], "ignore_eos": False, "return_tokens": True}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            answer = json.load(reply)
        probs = answer["completion_probabilities"]
        return [p["id"] for p in probs], answer["content"], [p["logprob"] for p in probs]

    def close(self):
        self.process.terminate()
        self.process.wait()


def cmc_complete(args, model, lora, prompt, tokens):
    """The same by cmc: generated, then scored as one text."""
    common = ["-m", model, "--exact", "-t", str(args.threads)] + (["--lora", lora] if lora else [])
    run = subprocess.run([args.cmc, "run", *common, "--template", "raw", "-n", str(tokens), "--json", prompt],
                         capture_output=True, text=True, check=True)
    answer = json.loads(run.stdout)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        json.dump({"text": prompt + answer["text"]}, f)
        f.flush()
        score = subprocess.run([args.cmc, "score", *common, "-f", f.name, "--tokens", "--json"], capture_output=True,
                               text=True, check=True)
    record = json.loads(score.stdout.splitlines()[0])
    ids = answer["ids"]
    n = len(ids)
    if n and record["ids"][-n:] != ids:    # ended by an end token, which is no text, or tokenised otherwise as a whole
        n -= 1
        if record["ids"][-n:] != ids[:n]:
            return ids, answer["text"], None
    return ids[:n], answer["text"], record["logprobs"][-n:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cmc", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--lora", required=True)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", help="a file with a prompt a line")
    parser.add_argument("--bound", type=float, default=2e-3)
    parser.add_argument("--as-is", action="store_true")
    args = parser.parse_args()
    prompts = [line.rstrip("\n") for line in open(args.prompts)] if args.prompts else PROMPTS
    with tempfile.TemporaryDirectory() as folder:
        base, merged = os.path.join(folder, "base.gguf"), os.path.join(folder, "merged.gguf")
        write = [args.cmc, "merge", "-m", args.base, "--save-type", "f32"]
        if args.as_is:
            base = args.base
        else:
            subprocess.run(write + ["--lora", args.lora + "=0", "-o", base], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(write + ["--lora", args.lora, "-o", merged], check=True, stdout=subprocess.DEVNULL)
        theirs = {}
        for name, model, extra in (("adapter", base, ["--lora", args.lora]), ("merged", merged, []), ("without", base, [])):
            server = Server(args.server, model, extra, args.threads)
            theirs[name] = [server.complete(p, args.tokens) for p in prompts]
            server.close()
        worst, same, moved = {"adapter": 0.0, "merged": 0.0}, {"adapter": 0, "merged": 0}, 0
        for i, prompt in enumerate(prompts):
            ids, text, logprobs = cmc_complete(args, base, args.lora, prompt, args.tokens)
            moved += theirs["without"][i][1] != theirs["adapter"][i][1]
            for name in worst:
                other = theirs[name][i]
                same[name] += other[0][:len(ids)] == ids
                for k, (a, b) in enumerate(zip(logprobs or [], other[2])):
                    if ids[k] != other[0][k]:
                        break
                    worst[name] = max(worst[name], abs(a - b))
            print(f"{json.dumps(prompt)}\n  cmc       {json.dumps(text)}\n  llama.cpp {json.dumps(theirs['adapter'][i][1])}")
        print(f"the adapter changes llama.cpp's text of {moved} of {len(prompts)} prompts")
        for name in worst:
            print(f"llama.cpp, {name}: {same[name]} of {len(prompts)} texts the same, log-probabilities differ by at most "
                  f"{worst[name]:.2e}")
        ok = all(same[n] == len(prompts) and worst[n] < args.bound for n in worst)
        return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
