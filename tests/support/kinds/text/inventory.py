import json
from pathlib import Path


class Inventory:
    """A tiny stock list that remembers itself on disk."""

    def __init__(self, path="stock.json"):
        self.path = Path(path)
        self.items = {}
        if self.path.exists():
            self.items = json.loads(self.path.read_text())

    def add(self, name, count=1):
        self.items[name] = self.items.get(name, 0) + count
        self._save()

    def remove(self, name, count=1):
        have = self.items.get(name, 0)
        if have < count:
            raise ValueError(f"only {have} x {name} left")
        if have == count:
            del self.items[name]
        else:
            self.items[name] = have - count
        self._save()

    def _save(self):
        self.path.write_text(json.dumps(self.items, indent=2))


if __name__ == "__main__":
    inv = Inventory()
    inv.add("jam jar", 12)
    inv.remove("jam jar", 5)
    for name, count in sorted(inv.items.items()):
        print(f"{count:4d}  {name}")
