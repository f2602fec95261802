"""Keep a tiny ledger of who owes whom after a shared holiday."""
import argparse
import json
from collections import defaultdict
from pathlib import Path

STORE = Path.home() / ".ledger.json"


class Ledger:
    def __init__(self, entries=None):
        self.entries = list(entries or [])

    @classmethod
    def load(cls, path=STORE):
        if not path.exists():
            return cls()
        return cls(json.loads(path.read_text()))

    def save(self, path=STORE):
        path.write_text(json.dumps(self.entries, indent=1))

    def add(self, payer, amount, sharers):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.entries.append({"payer": payer, "amount": amount, "for": sharers})

    def balances(self):
        total = defaultdict(float)
        for e in self.entries:
            part = e["amount"] / len(e["for"])
            total[e["payer"]] += e["amount"]
            for who in e["for"]:
                total[who] -= part
        return dict(total)

    def settle(self):
        bal = sorted(self.balances().items(), key=lambda kv: kv[1])
        i, j = 0, len(bal) - 1
        bal = [list(b) for b in bal]
        while i < j:
            pay = min(-bal[i][1], bal[j][1])
            if pay > 0.005:
                yield bal[i][0], bal[j][0], round(pay, 2)
            bal[i][1] += pay
            bal[j][1] -= pay
            if abs(bal[i][1]) < 0.005:
                i += 1
            if abs(bal[j][1]) < 0.005:
                j -= 1


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("payer", nargs="?")
    ap.add_argument("amount", nargs="?", type=float)
    ap.add_argument("sharers", nargs="*")
    args = ap.parse_args()
    book = Ledger.load()
    if args.payer:
        book.add(args.payer, args.amount, args.sharers)
        book.save()
    for a, b, x in book.settle():
        print(f"{a} pays {b} {x:.2f}")


if __name__ == "__main__":
    main()
