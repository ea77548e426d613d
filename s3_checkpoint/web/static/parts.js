"use strict";
// What both pages are made of: the one that `serve` shows, and the file that `timeline --html` writes.
// Everything that comes from a bucket is shown as text: no part of it becomes markup or script.

// As the library's `printable`: what is neither visible nor a space is shown as an escape, and acts on nothing.
const escaped = char => char.split("").map(unit => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0")).join("");
const plain = text => String(text).replace(/(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu, escaped);
const onOneLine = text => plain(text).replaceAll("\n", "\\u000a");

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) {
    if (child === undefined || child === null) continue;
    element.append(child instanceof Node ? child : plain(child));
  }
  return element;
}
function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = plain(text);
  return element;
}
function bytes(n) {
  for (const unit of ["B", "KiB", "MiB"]) { if (n < 1024) return (unit === "B" ? n : n.toFixed(1)) + " " + unit; n /= 1024; }
  return n.toFixed(1) + " GiB";
}
function span(s) {
  if (s >= 86400) return (s / 86400).toFixed(1) + " d";
  if (s >= 3600) return (s / 3600).toFixed(1) + " h";
  if (s >= 60) return (s / 60).toFixed(1) + " min";
  return Math.max(0, s).toFixed(0) + " s";
}
// Numbers that a browser would show as others come as marked text.
const number = value => typeof value === "string" ? value.slice(value.indexOf(":") + 1) : value;
const when = text => new Date(text).toLocaleString();
const text = value => JSON.stringify(value, null, 2).replace(/(?<!\\)"\\u0000number:([^"]*)"/g, "$1").replace(/(?<!\\)"\\u0000text:/g, '"');
const unmarked = name => String(name).replace(/^\0text:/, "");
const nameOf = row => row.label !== undefined ? row.label : `step ${number(row.step)}`;
const shortName = row => row.short !== undefined ? row.short : number(row.step);

// What differs between two values: [{path: [...], change, before?, after?}], lists aligned at both ends.
function differences(before, after, path = []) {
  const found = [];
  const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
  const isMap = value => value !== null && typeof value === "object" && !Array.isArray(value);
  if (isMap(before) && isMap(after)) {
    const has = (map, key) => Object.prototype.hasOwnProperty.call(map, key);
    for (const key of [...Object.keys(before), ...Object.keys(after).filter(key => !has(before, key))]) {
      if (!has(after, key)) found.push({ path: [...path, key], change: "removed", before: before[key] });
      else if (!has(before, key)) found.push({ path: [...path, key], change: "added", after: after[key] });
      else found.push(...differences(before[key], after[key], [...path, key]));
    }
  } else if (Array.isArray(before) && Array.isArray(after)) {
    const shorter = Math.min(before.length, after.length);
    let start = 0, end = 0;
    while (start < shorter && same(before[start], after[start])) start++;
    while (end < shorter - start && same(before[before.length - 1 - end], after[after.length - 1 - end])) end++;
    const olds = before.slice(start, before.length - end), news = after.slice(start, after.length - end);
    for (let i = 0; i < Math.max(olds.length, news.length); i++) {
      const at = [...path, start + i];
      if (i >= news.length) found.push({ path: at, change: "removed", before: olds[i] });
      else if (i >= olds.length) found.push({ path: at, change: "added", after: news[i] });
      else found.push(...differences(olds[i], news[i], at));
    }
  } else if (!same(before, after)) found.push({ path, change: "changed", before, after });
  return found;
}
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  // A list of pairs: a key named `__proto__` is a key like any other.
  return { pairs: Object.keys(value).sort().map(key => [key, sorted(value[key])]) };
}
function pathText(path, root = "$") {
  return root + path.map(key => typeof key === "number" ? `[${key}]` : /^[A-Za-z_][A-Za-z0-9_]*$/.test(key) ? `.${key}` : `['${unmarked(key)}']`).join("");
}

// A JSON value as a tree that opens where it is asked to; `touched` and `found` hold paths as JSON text.
function tree(value, path, name, touched, found, open) {
  const place = JSON.stringify(path), within = path.length ? place.slice(0, -1) + "," : "[";
  const names = [touched.has(place) && "touched", found.has(place) && "found"].filter(Boolean).join(" ") || null;
  const entries = Array.isArray(value) ? value.map((v, i) => [i, v]) : value && typeof value === "object" ? Object.entries(value) : null;
  const key = name === undefined ? null : make("span", { class: "key" }, `${onOneLine(unmarked(name))}: `);
  if (!entries || !entries.length) return make("div", { class: "leaf" }, key, make("span", { class: names }, text(value)));
  const inside = [touched, found].some(set => [...set].some(other => other !== place && other.startsWith(within)));
  const details = make("details", { open: open || inside || names !== null });
  details.append(make("summary", { class: names }, key, Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`));
  const fill = () => { if (details.children.length === 1) for (const [key, inner] of entries) details.append(tree(inner, [...path, key], key, touched, found, false)); };
  if (details.open) fill();
  details.addEventListener("toggle", fill);
  return details;
}

// Paths of keys and leaves that hold `wanted`, up to `limit` of them.
function search(value, wanted, limit) {
  const needle = wanted.toLowerCase(), found = [];
  const visit = (value, path, key) => {
    if (found.length >= limit) return;
    const isBranch = value !== null && typeof value === "object";
    const inKey = key !== undefined && String(key).toLowerCase().includes(needle);
    if (inKey || (!isBranch && (typeof value === "string" ? value : text(value)).toLowerCase().includes(needle))) found.push(path);
    if (isBranch) for (const [key, inner] of Array.isArray(value) ? value.entries() : Object.entries(value)) visit(inner, [...path, key], key);
  };
  visit(value, [], undefined);
  return found;
}

async function copyText(value) {
  try {
    return await navigator.clipboard.writeText(value);
  } catch {  // a page opened as a file has no clipboard of its own, and a browser may refuse it
    const area = make("textarea", { readonly: true });
    area.value = value;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
function download(value, name) {
  const link = make("a", { href: URL.createObjectURL(new Blob([value], { type: "application/json" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function changeRow(change, path) {
  return make("li", { class: change.change }, make("div", { class: "path" }, make("span", { class: "hidden-text" }, `${change.change}: `), onOneLine(path)),
    "before" in change ? make("div", { class: "value before" }, text(change.before)) : null,
    "after" in change ? make("div", { class: "value after" }, text(change.after)) : null);
}

// A state with its tools: search, copy, download. `stateOf()` gives {state} or {left_out, hint}.
function statePanel(section, name) {
  const box = make("input", { type: "search", placeholder: "Search in this state", "aria-label": "Search in this state" });
  const count = make("span", { class: "note", role: "status" });
  const copy = make("button", { type: "button" }, "Copy"), save = make("button", { type: "button" }, "Download");
  const body = make("div", { id: "state", class: "json" });
  section.append(make("h2", {}, "State"), make("div", { class: "state-tools" }, box, copy, save, count), body);
  let shown = null, touched = new Set(), file = "state.json";
  function show() {
    body.replaceChildren();
    const usable = shown && shown.state !== undefined;
    for (const control of [box, copy, save]) control.disabled = !usable;
    count.textContent = "";
    if (shown && shown.left_out) { save.disabled = !shown.href; body.append(make("p", { class: "note" }, shown.hint)); return; }
    if (!usable) return;
    const wanted = box.value.trim();
    const found = wanted ? search(shown.state, wanted, 200) : [];
    if (wanted) count.textContent = found.length === 200 ? "200 places or more" : found.length === 1 ? "1 place" : `${found.length} places`;
    body.append(tree(shown.state, [], undefined, touched, new Set(found.map(path => JSON.stringify(path))), true));
    const first = body.querySelector(".found");
    if (first) first.scrollIntoView({ block: "nearest" });
  }
  box.addEventListener("input", show);
  copy.addEventListener("click", async () => { await copyText(text(shown.state)); count.textContent = "copied"; });
  save.addEventListener("click", () => shown.href ? window.location.assign(shown.href) : download(text(shown.state), file));
  return { set(value, marks, fileName) { shown = value; touched = marks; file = fileName; show(); }, box };
}

// A run or thread over time. `run`: {title, metadata, steps, forks}. `source.state(row)` gives (a promise of) its state.
// `source.chosen(row)` is told what is shown; `source.compare(row, other)` too, where two steps are compared.
function timeline(root, run, source) {
  let steps = run.steps, index = steps.length - 1, other = null, turn = 0;
  const $ = id => root.querySelector("#" + id);
  const part = (title, id) => make("section", {}, make("h2", {}, title), make("ul", { id }));
  const stateSection = make("section", { "aria-label": "State" });
  root.replaceChildren(
    make("h1", { id: "title", tabindex: "-1" }), make("p", { id: "summary", class: "metadata" }),
    make("div", { id: "chart", class: "chart", tabindex: "0", role: "group", "aria-label": "Steps over time" }),
    make("nav", { class: "steps", "aria-label": "Steps" },
      make("button", { id: "previous", type: "button", title: "Arrow left" }, "← Earlier"), make("button", { id: "next", type: "button", title: "Arrow right" }, "Later →"),
      make("input", { id: "slider", type: "range", min: 0, value: 0, "aria-label": "Step" }),
      make("span", { id: "where", "aria-live": "polite" }),
      make("label", {}, "compare with ", make("select", { id: "other" }))),
    make("div", { class: "panels" },
      make("div", { class: "stack" }, make("section", {}, make("h2", { id: "changes-title" }), make("ul", { id: "changes" })), part("Tasks that run next", "active"), part("How it is stored", "stored")),
      stateSection));
  const state = statePanel(stateSection);

  function chart() {
    const box = $("chart"), left = box.scrollLeft;
    box.replaceChildren();
    const nodes = [...new Set(steps.flatMap(step => step.active.map(task => task.node_name)))];
    const label = Math.min(170, Math.max(90, box.clientWidth * 0.3), 16 + 7 * Math.max(4, ...nodes.map(name => name.length)));
    const letters = Math.floor((label - 12) / 7);
    const gaps = steps.map(step => step.missing_before ? 1 : 0);
    const columns = gaps.map((_, i) => i + gaps.slice(0, i + 1).reduce((a, b) => a + b, 0));
    const count = columns[columns.length - 1] + 1;
    const wide = Math.max(34, Math.min(72, Math.floor((box.clientWidth - label - 12) / count)));
    const high = 110, lane = 20, top = 30;
    const width = count * wide + 10, height = top + high + 26 + nodes.length * lane + 10;
    const lanes = draw("svg", { class: "lanes", width: label, height, "aria-hidden": "true" });
    const svg = draw("svg", { width, height, role: "img", "aria-label": "Steps over time, with their size and the tasks after each" });
    lanes.append(draw("text", { x: 8, y: top + high - 4 }, "size"));
    nodes.forEach((name, i) => {
      const y = top + high + 36 + i * lane;
      svg.append(draw("line", { x1: 0, x2: width - 10, y1: y, y2: y, class: "lane" }));
      lanes.append(draw("text", { x: 8, y: y + 4 }, name.length > letters ? onOneLine(name.slice(0, letters - 1)) + "…" : onOneLine(name)));
    });
    const pauses = steps.slice(1).map(step => step.pause_s).sort((a, b) => a - b);
    const usual = pauses.length ? pauses[Math.floor(pauses.length / 2)] : 0;
    const largest = Math.max(1, ...steps.map(step => step.size));
    steps.forEach((step, i) => {
      const x = columns[i] * wide;
      if (step.missing_before) {
        const [from, to] = step.missing_before;
        const mark = draw("text", { x: x - wide / 2, y: top + high - 4, "text-anchor": "middle", class: "gap" }, "⋯");
        mark.append(draw("title", {}, from === to ? `step ${number(from)} is missing` : `steps ${number(from)} to ${number(to)} are missing`));
        svg.append(mark);
      }
      if (i && step.pause_s > 60 && step.pause_s > 10 * usual)
        svg.append(draw("text", { class: "pause", x: x + wide / 2, y: top - 4, "text-anchor": "middle" }, "+" + span(step.pause_s)));
      const group = draw("g", { class: "step", "data-index": i });
      group.append(draw("title", {}, `${nameOf(step)}: ${bytes(step.size)}, ${when(step.last_modified)}`));
      group.append(draw("rect", { class: "hit", x, y: 2, width: wide, height: height - 4, rx: 4 }));
      const bar = Math.max(2, high * step.size / largest);
      group.append(draw("rect", { class: "bar", x: x + 6, y: top + high - bar, width: wide - 12, height: bar, rx: 2 }));
      group.append(draw("text", { class: "number", x: x + wide / 2, y: top + high + 15, "text-anchor": "middle" }, shortName(step)));
      for (const name of new Set(step.active.map(task => task.node_name)))
        group.append(draw("circle", { class: "dot", cx: x + wide / 2, cy: top + high + 36 + nodes.indexOf(name) * lane, r: 5 }));
      const marks = run.forks.filter(fork => fork.step === step.step).map(fork => `forked as ${fork.run_id}`);
      if (step.origin) marks.unshift(`fork of ${step.origin.run_id}, step ${number(step.origin.step)}`);
      if (marks.length) {
        const at = x + wide / 2;
        const mark = draw("path", { class: "fork", d: `M${at - 6} 8v3q0 4 6 5v7M${at + 6} 8v3q0 4 -6 5` });
        mark.append(draw("title", {}, marks.join("\n")));
        group.append(mark);
      }
      group.addEventListener("click", () => choose(i));
      svg.append(group);
    });
    box.append(lanes, svg);
    box.scrollLeft = left;
  }

  function head() {
    $("title").textContent = plain(run.title);
    const total = (new Date(steps[steps.length - 1].last_modified) - new Date(steps[0].last_modified)) / 1000;
    $("summary").textContent = plain([...run.metadata, `${steps.length} steps in ${span(total)}`, bytes(steps.reduce((sum, step) => sum + step.size, 0)), when(steps[0].last_modified)].join(" · "));
    $("slider").max = steps.length - 1;
    const options = [make("option", { value: "" }, "the one before")];
    steps.forEach((step, i) => options.push(make("option", { value: i }, nameOf(step))));
    $("other").replaceChildren(...options);
    $("other").value = other === null ? "" : other;
  }

  function showChanges(step, comparison) {
    const list = $("changes");
    list.replaceChildren();
    $("changes-title").textContent = plain(comparison ? `What differs from ${nameOf(comparison.other)}` : "What this step changed");
    if (comparison) {
      for (const change of comparison.changes.slice(0, 500)) list.append(changeRow(change, pathText(change.path)));
      if (comparison.changes.length > 500) list.append(make("li", { class: "note" }, `and ${comparison.changes.length - 500} more`));
      if (comparison.problem) list.append(make("li", { class: "note" }, comparison.problem));
      else if (!comparison.changes.length) list.append(make("li", { class: "note" }, "nothing: both states are the same"));
      return;
    }
    for (const change of step.changes) list.append(changeRow(change, change.path));
    if (step.changes_left_out) list.append(make("li", { class: "note" }, `and ${step.changes_left_out} more`));
    if (!step.changes.length && !step.changes_left_out) list.append(make("li", { class: "note" }, index === 0 ? "the first step shown" : "nothing"));
  }

  async function choose(next) {
    index = Math.max(0, Math.min(steps.length - 1, next));
    const step = steps[index], mine = ++turn;
    for (const group of root.querySelectorAll(".step")) group.classList.toggle("chosen", +group.dataset.index === index);
    const hit = root.querySelector(".step.chosen .hit");
    const box = $("chart"), left = +hit.getAttribute("x"), room = box.clientWidth - box.querySelector(".lanes").clientWidth;
    if (left < box.scrollLeft || left > box.scrollLeft + room - 40) box.scrollLeft = left - room / 2;
    $("slider").value = index;
    $("slider").setAttribute("aria-valuetext", nameOf(step));
    $("previous").disabled = index === 0;
    $("next").disabled = index === steps.length - 1;
    $("where").textContent = plain(`${nameOf(step)} (${index + 1} of ${steps.length})`);
    showChanges(step, null);

    const active = $("active"); active.replaceChildren();
    for (const task of step.active)
      active.append(make("li", {}, make("strong", {}, onOneLine(task.node_name)), task.payload !== null && task.payload !== undefined ? make("div", { class: "value json" }, text(task.payload)) : null));
    if (step.active_left_out) active.append(make("li", { class: "note" }, `and ${step.active_left_out} more`));
    if (!step.active.length && !step.active_left_out) active.append(make("li", { class: "note" }, "none"));

    const stored = $("stored"); stored.replaceChildren();
    const notes = [`${when(step.last_modified)}, ${bytes(step.size)}${step.encoding ? ", " + step.encoding : ""}`];
    if (step.stored) notes.push(...step.stored);
    else notes.push(`${step.committed ? "by commit" : "by save"}, schema version ${step.schema_version}`);
    if (index) notes.push(`${span(step.pause_s)} after the step before`);
    if (step.missing_before) notes.push(`missing before it: ${step.missing_before[0] === step.missing_before[1] ? "step " + number(step.missing_before[0]) : "steps " + step.missing_before.map(number).join(" to ")}`);
    if (step.origin) notes.push(`fork of run ${step.origin.run_id}, step ${number(step.origin.step)}`);
    for (const fork of run.forks) if (fork.step === step.step) notes.push(`forked as run ${fork.run_id}`);
    for (const note of notes) stored.append(make("li", {}, note));

    const touched = new Set(step.changes.filter(c => c.at && c.change !== "removed").map(c => JSON.stringify(c.at)));
    const compared = other !== null && other !== index && steps[other] ? steps[other] : null;
    source.chosen(step, compared);
    const file = onOneLine(`${run.name}-${shortName(step)}.json`);
    const answers = [source.state(step), compared ? source.state(compared) : null];
    if (answers.some(answer => answer instanceof Promise)) {
      state.set(null, touched, file);
      const loaded = await Promise.all(answers);
      if (mine === turn) finish(step, compared, loaded, touched, file);
    } else finish(step, compared, answers, touched, file);
  }

  function finish(step, compared, [own, others], touched, file) {
    let marks = touched;
    if (compared) {
      const comparison = { other: compared, changes: [] };
      if (own.state === undefined || others.state === undefined) comparison.problem = "one of the two states is too large for this page";
      else comparison.changes = differences(others.state, own.state);
      marks = new Set(comparison.changes.filter(c => c.change !== "removed").map(c => JSON.stringify(c.path)));
      showChanges(step, comparison);
    }
    state.set(own, marks, file);
  }

  const onKey = event => {
    if (!root.isConnected || !root.querySelector("#slider")) { document.removeEventListener("keydown", onKey); return; }
    if (event.target === $("slider") || event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) { event.preventDefault(); choose(moves[event.key]); }
    if (event.key === "/") { event.preventDefault(); state.box.focus(); }
  };
  document.addEventListener("keydown", onKey);
  $("slider").addEventListener("input", () => choose(+$("slider").value));
  $("previous").addEventListener("click", () => choose(index - 1));
  $("next").addEventListener("click", () => choose(index + 1));
  $("other").addEventListener("change", () => { other = $("other").value === "" ? null : +$("other").value; choose(index); });
  head();
  chart();
  choose(source.start !== undefined ? steps.findIndex(source.start) >= 0 ? steps.findIndex(source.start) : index : index);
  return {
    // Shows newer steps behind those that are there; who looked at the newest follows, any other stays where they are.
    add(more) {
      const atEnd = index === steps.length - 1;
      steps = run.steps = [...steps, ...more];
      head(); chart(); choose(atEnd ? steps.length - 1 : index);
    },
    before(more) {
      steps = run.steps = [...more, ...steps];
      if (other !== null) other += more.length;
      head(); chart(); choose(index + more.length);
    },
    forks(found) { run.forks = found; chart(); choose(index); },
    compare(match) {
      const found = steps.findIndex(match);
      if (found >= 0) { other = found; $("other").value = found; choose(index); }
    },
    last: () => steps[steps.length - 1],
    first: () => steps[0],
  };
}
