// What the kernels of each node use: memory, and cores by how their processor time grows.

export class Figures {
  constructor() {
    this.of = new Map(); // by node, where somebody counts: memory, cores, and when of what
  }

  // Take in what nodes tell of themselves; `own`, where it tells nothing, may be measured instead.
  take(nodes, own) {
    const told = new Map(nodes.map((one) => [one.node, typeof one.memory === "number"]));
    for (const name of this.of.keys()) if (!told.get(name) && name !== own) this.of.delete(name);
    for (const one of nodes)
      if (told.get(one.node))
        this.put(one.node, one.memory, new Map([["", one.cpu_seconds]]), one.counted);
  }

  // Take in the measured processes of a node; returns the memory of its kernels, by their ids.
  measure(node, kernels) {
    const rows = kernels.filter((row) => typeof row.pss === "number");
    const spent = new Map(rows.map((row) => [row.pid, row.cpu_seconds]));
    const memory = rows.reduce((total, row) => total + row.pss, 0);
    this.put(node, memory, spent, performance.now() / 1000);
    return new Map(rows.map((row) => [row.kernel, row.pss]));
  }

  forget(node) {
    this.of.delete(node);
  }

  put(node, memory, spent, at) {
    const before = this.of.get(node);
    if (before && at <= before.at) return; // the same record, seen again
    let cores = null;
    if (before) {
      let used = 0;
      for (const [name, total] of spent)
        used += Math.max(0, total - (before.spent.get(name) ?? total));
      cores = used / (at - before.at);
    }
    this.of.set(node, { memory, cores, spent, at });
  }

  // One figure of some nodes, all together; null where nobody counts it.
  total(name, nodes) {
    const known = nodes.map((one) => this.of.get(one.node)?.[name] ?? null);
    const counted = known.filter((value) => value !== null);
    return counted.length ? counted.reduce((total, value) => total + value, 0) : null;
  }
}
