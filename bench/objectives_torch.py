#!/usr/bin/env python3
"""Values and gradients of the training losses by PyTorch's autograd in double, as a C header for the tests.

    bench/objectives_torch.py >tests/data/objectives.h          (pip install torch numpy)

Written from the papers' formulas and contract "Steering" of docs/design.md, without cmc's gradients: steered logits are built as the
program builds them, a loss is taken of them, and autograd does the rest. Inputs follow formulas that the test repeats; host states are
multiples of 1/64, so that half precision keeps them.
"""
import torch
import torch.nn.functional as F

N_HOST, WIDTH, N_DELTA, ROWS, ALPHA = 545, 64, 8, 3, 0.8
torch.set_default_dtype(torch.float64)


def inputs():
    state = torch.tensor([[((i * 37 + r * 11) % 129 - 64) / 64 * 3 for i in range(WIDTH)] for r in range(ROWS)])
    host = torch.cat([state, torch.zeros(ROWS, N_HOST - WIDTH)], 1)
    delta = torch.tensor([[((j * 5 + r * 3) % 17 - 8) / 4 for j in range(N_DELTA)] for r in range(ROWS)])
    to = torch.tensor([(i * 7 + 3) % 10 for i in range(N_HOST)])
    to[to >= N_DELTA] = -1
    target = torch.tensor([5, 21, 6])        # the first is mapped to nothing
    return host, delta, to, target


def steered(host, delta, to):
    mapped = to >= 0
    s = ALPHA * delta[:, to.clamp(min=0)]
    p = F.softmax(host, 1)
    c = torch.log((p * s.exp())[:, mapped].sum(1) / p[:, mapped].sum(1))
    return host + torch.where(mapped, s - c[:, None], torch.zeros(()))


def losses(host, delta, to, target):
    q = F.log_softmax(steered(host, delta, to), 1)
    p = F.log_softmax(host, 1)
    return {"nll": -q.gather(1, target[:, None]).sum(),
            "kl_host": (p.exp() * (p - q)).sum(),
            "kl_steered": (q.exp() * (q - p)).sum()}


def record_losses():
    """name, beta, gamma, (nll, host nll, tokens) of the response and of a refusal, loss, derivatives by both nll."""
    out = []
    for name, beta, gamma, r, f in [("npo", 0.1, 0.0, (23.5, 20.25, 9), (0, 0, 1)), ("npo", 1.5, 0.0, (3.0, 6.5, 4), (0, 0, 1)),
                                    ("simnpo", 2.5, 0.0, (12.0, 0.0, 7), (0, 0, 1)), ("simnpo", 4.0, 0.75, (31.0, 0.0, 11), (0, 0, 1)),
                                    ("dpo", 0.1, 0.0, (14.0, 13.0, 6), (11.0, 12.5, 5)), ("dpo", 0.9, 0.0, (8.0, 9.5, 6), (7.0, 5.0, 5))]:
        a = torch.tensor(float(r[0]), requires_grad=True)
        b = torch.tensor(float(f[0]), requires_grad=True)
        log_ratio = -a - -torch.tensor(float(r[1]))
        if name == "npo":
            value = -2 / beta * F.logsigmoid(-beta * log_ratio)
        elif name == "simnpo":
            value = -2 / beta * F.logsigmoid(-beta / r[2] * -a - gamma)
        else:
            value = -F.logsigmoid(beta * ((-b - -torch.tensor(float(f[1]))) - log_ratio))
        value = value + 0 * a + 0 * b
        value.backward()
        out.append((name, beta, gamma, r, f, value.item(), a.grad.item(), b.grad.item()))
    return out


def main():
    host, delta, to, target = inputs()
    print("/* Made by bench/objectives_torch.py (PyTorch " + torch.__version__.split("+")[0] + "). */")
    print("static const int32_t torch_targets[] = {" + ", ".join(str(int(t)) for t in target) + "};")
    print("static const struct { const char *part; double loss; double gradient[%d][%d]; } torch_parts[] = {" % (ROWS, N_DELTA))
    for part in ("nll", "kl_host", "kl_steered"):
        d = delta.clone().requires_grad_(True)
        value = losses(host, d, to, target)[part]
        value.backward()
        rows = ",\n      ".join("{" + ", ".join(f"{x:.12g}" for x in row) + "}" for row in d.grad.tolist())
        print(f'    {{"{part}", {value.item():.15g},\n     {{{rows}}}}},')
    print("};")
    print("static const struct { const char *name; double beta, gamma; objective_response r, refusal; double loss, dr, drefusal; } "
          "torch_records[] = {")
    for name, beta, gamma, r, f, value, da, db in record_losses():
        print(f'    {{"{name}", {beta}, {gamma}, {{{r[0]}, {r[1]}, {r[2]}}}, {{{f[0]}, {f[1]}, {f[2]}}}, {value:.15g}, {da:.15g}, {db:.15g}}},')
    print("};")


main()
