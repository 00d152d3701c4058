// The session's files: read, sent, removed.

import { ask, at, download, fetched, filePath, get } from "./api.js";
import { confirmed } from "./ask.js";
import { button, el, note } from "./dom.js";
import { bytes, plural } from "./format.js";
import { explained } from "./words.js";

const MOST = 500;
const LARGE = 256 << 20; // bytes that are held in memory on their way to the disk

export class Files {
  constructor(session, mayWrite) {
    this.session = session; // {name, tenant}
    this.mayWrite = mayWrite;
    this.list = el("div", { class: "list" });
    this.input = el("input", {
      type: "file",
      multiple: true,
      hidden: true,
      onchange: () => this.send([...this.input.files]),
    });
    this.element = el(
      "div",
      { class: "panel" },
      el(
        "div",
        { class: "head" },
        mayWrite && button("Upload…", () => this.input.click(), { class: "link" }),
        button("Read again", () => this.read(), { class: "link" }),
        this.input,
      ),
      this.list,
    );
    if (mayWrite) this.takeDrops();
  }

  takeDrops() {
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      this.send([...event.dataTransfer.files]);
    });
  }

  async read() {
    try {
      const told = await get(at(this.session, `/files?recursive=true&limit=${MOST}`));
      this.draw(told);
    } catch (error) {
      const none = ["unknown_session", "no_workspace"].includes(error.code);
      this.list.replaceChildren(
        el(
          "p",
          { class: "remark" },
          none ? "There are no files: the session has no kernel here." : explained(error),
        ),
      );
    }
  }

  draw({ files, next }) {
    const rows = files.filter((one) => one.type !== "directory");
    if (!rows.length)
      return this.list.replaceChildren(el("p", { class: "remark" }, "No files yet."));
    this.list.replaceChildren(...rows.map((one) => this.row(one)));
    if (next)
      this.list.append(
        el(
          "p",
          { class: "remark" },
          `Only the first ${plural(files.length, "entry", "entries")} are listed.`,
        ),
      );
  }

  row(one) {
    const name = one.path.split("/").at(-1);
    const loads = one.type === "file";
    return el(
      "div",
      { class: "file" },
      loads
        ? button(one.path, () => this.load(one, name), {
            class: "link name",
            title: `Download ${one.path}`,
          })
        : el("span", { class: "name" }, `${one.path} (${one.type})`),
      el("span", { class: "size" }, loads ? bytes(one.size) : ""),
      this.mayWrite &&
        button("×", () => this.remove(one), { class: "bare", "aria-label": `Remove ${one.path}` }),
    );
  }

  async load(one, name) {
    if (one.size > LARGE && !(await confirmed(this.asked(one, name)))) return;
    try {
      await download(filePath(this.session, one), name);
    } catch (error) {
      note(explained(error), "error");
    }
  }

  // What is said of a file that is large for a browser.
  asked(one, name) {
    const { name: session, tenant } = this.session;
    const command = `broker files ${session} get${tenant ? ` --tenant ${tenant}` : ""}`;
    const size = `It is ${bytes(one.size)}, and goes through this browser's memory.`;
    const text = [`${size} ${command} does without.`];
    return { title: `Download ${name}?`, text, act: "Download", danger: false };
  }

  async send(files) {
    for (const file of files) {
      try {
        await fetched("PUT", filePath(this.session, { path: file.name }), {
          body: file,
          type: "application/octet-stream",
        });
        note(`${file.name}: ${bytes(file.size)} sent`);
      } catch (error) {
        note(`${file.name}: ${explained(error)}`, "error");
      }
    }
    this.input.value = "";
    this.read();
  }

  async remove(one) {
    const agreed = await confirmed({
      title: "Remove this file?",
      text: [
        one.path,
        this.session.tenant && `It is in ${this.session.name} of tenant ${this.session.tenant}.`,
        "It cannot be brought back.",
      ].filter(Boolean),
      act: "Remove",
    });
    if (!agreed) return;
    try {
      await ask("DELETE", filePath(this.session, one));
    } catch (error) {
      note(explained(error), "error");
    }
    this.read();
  }
}
