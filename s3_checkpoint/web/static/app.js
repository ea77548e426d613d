"use strict";
// The live page: lists of runs and threads, and one of them over time. It only reads, and asks nobody but its own server.

const view = document.getElementById("view"), problem = document.getElementById("problem");
let place = null, refresh = null, paused = false, drawn = 0;

class Problem extends Error {}

async function ask(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters || {}))
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== null && one !== "") query.append(name, one);
  let answer;
  try {
    answer = await fetch(`/api/${path}?${query}`, { headers: { Accept: "application/json" } });
  } catch {
    throw new Problem("The server does not answer: was s3-checkpoint serve stopped?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(body.error || `The server answered ${answer.status}.`);
  return body;
}

function link(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined && value !== null && value !== "") query.append(name, value);
  return query.size ? `${path}?${query}` : path;
}

function tell(error) {
  problem.textContent = error ? plain(error instanceof Problem ? error.message : `This page has a fault: ${error}`) : "";
  if (error && !(error instanceof Problem)) console.error(error);
}

// --- lists ---------------------------------------------------------------------------------------------------------

const KINDS = {
  runs: { title: "Runs", one: "run", id: "run_id", statuses: ["waiting", "active", "finished"], none: "No run is here.", open: row => link("/run", { id: row.run_id }), progress: "newest_step", progressName: "Newest step" },
  threads: { title: "Threads", one: "thread", id: "thread_id", statuses: ["interrupted", "active", "idle", "in error"], none: "No thread is here.", open: row => link("/thread", { id: row.thread_id }), progress: "step", progressName: "Newest step" },
};

async function showList(kind, parameters) {
  const its = KINDS[kind], mine = ++drawn;
  const box = make("input", { type: "search", placeholder: `Beginning of the ${its.one}'s id`, "aria-label": `Search: beginning of the ${its.one}'s id`, value: parameters.get("search") || "" });
  const status = make("select", { "aria-label": "Status" }, make("option", { value: "" }, "any status"), ...its.statuses.map(name => make("option", { value: name }, name)));
  status.value = parameters.get("status") || "";
  const node = make("input", { type: "search", placeholder: "Next node", "aria-label": "Next node", value: parameters.get("node") || "" });
  const rows = make("tbody"), more = make("button", { type: "button" }, "Show more"), note = make("p", { class: "note", role: "status" });
  view.replaceChildren(
    make("h1", {}, its.title),
    make("form", { class: "tools", role: "search", onsubmit: event => event.preventDefault() }, box, status, node),
    make("table", { class: "list" }, make("caption", { class: "hidden-text" }, its.title),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Id"), make("th", { scope: "col" }, "Status"), make("th", { scope: "col" }, "Next nodes"), make("th", { scope: "col", class: "number" }, its.progressName), make("th", { scope: "col" }, "Stored"))), rows),
    note, more);
  document.title = `${its.title} · s3-checkpoint`;
  const known = new Map(), order = [];
  let next = null;

  function row(item) {
    const wanted = status.value, wantedNode = node.value.trim();
    if (wanted && item.status !== wanted) return null;
    if (wantedNode && !(item.next || []).some(name => name.includes(wantedNode))) return null;
    const state = item.status === undefined ? make("span", { class: "status unknown" }, "…") : make("span", { class: `status ${item.status.replace(" ", "-")}` }, item.status);
    const stored = item.last_modified ? make("time", { datetime: item.last_modified, title: item.last_modified }, `${when(item.last_modified)} (${span((Date.now() - new Date(item.last_modified)) / 1000)} ago)`) : "";
    return make("tr", {},
      make("th", { scope: "row", class: "id" }, make("a", { href: its.open(item), "data-inside": true }, onOneLine(item[its.id]))),
      make("td", { "data-name": "status" }, state), make("td", { "data-name": "next" }, (item.next || []).map(onOneLine).join(", ") || (item.status === undefined ? "" : "–")),
      make("td", { class: "number", "data-name": its.progressName.toLowerCase() }, item[its.progress] === null || item[its.progress] === undefined ? "" : number(item[its.progress])),
      make("td", { "data-name": "stored" }, stored));
  }
  function render() {
    if (mine !== drawn) return;
    const focused = document.activeElement && document.activeElement.getAttribute("href");
    const lines = order.map(id => row(known.get(id))).filter(Boolean);
    rows.replaceChildren(...lines);
    if (focused) { const again = [...rows.querySelectorAll("a")].find(a => a.getAttribute("href") === focused); if (again) again.focus(); }
    const loaded = `${order.length} ${its.one}${order.length === 1 ? "" : "s"} loaded`;
    note.textContent = plain(!order.length ? (box.value ? `No ${its.one}'s id begins like this.` : its.none) : lines.length === order.length ? `${loaded}${next ? ", there are more" : ""}` : `${lines.length} of ${loaded}`);
    more.hidden = !next;
  }
  async function details(ids) {
    for (let start = 0; start < ids.length; start += 25) {
      const found = await ask(`${kind}/activity`, { id: ids.slice(start, start + 25) });
      if (mine !== drawn) return;
      for (const item of found[kind]) known.set(item[its.id], item);
      render();
    }
  }
  async function load(after) {
    const page = await ask(kind, { search: box.value.trim(), after });
    if (mine !== drawn) return;
    next = page.next;
    const fresh = page[kind].map(item => item[its.id]).filter(id => !known.has(id));
    for (const item of page[kind]) if (!known.has(item[its.id])) { known.set(item[its.id], item); order.push(item[its.id]); }
    render();
    await details(fresh);
  }
  let typing = 0;
  box.addEventListener("input", () => {
    const turn = ++typing;
    setTimeout(() => { if (turn === typing) { known.clear(); order.length = 0; remember(); run(() => load(null)); } }, 250);
  });
  const filter = () => { remember(); render(); };
  status.addEventListener("change", filter);
  node.addEventListener("input", filter);
  more.addEventListener("click", () => run(() => load(next)));
  function remember() {
    history.replaceState(null, "", link(`/${kind}`, { search: box.value.trim(), status: status.value, node: node.value.trim() }));
  }
  view.focusSearch = () => box.focus();
  refresh = async () => {
    const page = await ask(kind, { search: box.value.trim() });
    if (mine !== drawn) return;
    const fresh = page[kind].map(item => item[its.id]).filter(id => !known.has(id));
    for (const id of fresh) { known.set(id, { [its.id]: id }); order.push(id); }
    order.sort();
    if (!next || order.length <= page[kind].length) next = page.next;
    await details([...fresh, ...order.filter(id => !fresh.includes(id) && known.get(id).status !== "finished")]);
  };
  await load(null);
}

// --- one run or thread ---------------------------------------------------------------------------------------------

async function showOne(kind, parameters) {
  const mine = ++drawn, id = parameters.get("id") || "", namespace = parameters.get("namespace") || "";
  const about = { id, namespace };
  document.title = `${id} · s3-checkpoint`;
  view.focusSearch = null;
  view.replaceChildren(make("p", { class: "note", role: "status" }, "reading …"));
  const run = await ask(kind, { ...about, around: parameters.get("step") });
  if (mine !== drawn) return;
  const back = make("div", { class: "tools" }, make("a", { href: kind === "run" ? "/runs" : "/threads", "data-inside": true }, kind === "run" ? "← Runs" : "← Threads"));
  if (!run.steps.length) {
    place_(back, make("h1", {}, `${kind === "run" ? "Run" : "Thread"} ${onOneLine(id)}`), make("p", { class: "note" }, "Nothing is stored here, in this namespace."), namespaces(kind, id, namespace, run.namespaces));
    return;
  }
  const body = make("div");
  run.title = `${kind === "run" ? "Run" : "Thread"} ${id}${namespace ? ", namespace " + namespace : ""}`;
  run.name = id;
  run.metadata = [run.status, ...(run.pruned_up_to == null ? [] : [`pruned up to step ${number(run.pruned_up_to)}`])].filter(Boolean);
  run.forks = run.forks || [];
  place_(back, namespaces(kind, id, namespace, run.namespaces), body);
  const states = new Map();
  const keyOf = step => step.id !== undefined ? step.id : String(number(step.step));
  const source = {
    chosen(step, other) {
      history.replaceState(null, "", link(`/${kind}`, { ...about, step: keyOf(step), compare: other ? keyOf(other) : undefined }));
    },
    state(step) {
      const key = keyOf(step);
      if (!states.has(key)) {
        states.set(key, ask(`${kind}/state`, { ...about, step: key }).catch(error => { states.delete(key); return { left_out: true, hint: error.message }; }));
        if (states.size > 20) states.delete(states.keys().next().value);
      }
      return states.get(key);
    },
    start: parameters.get("step") ? step => keyOf(step) === parameters.get("step") : undefined,
  };
  const shown = timeline(body, run, source);
  if (parameters.get("compare")) shown.compare(step => keyOf(step) === parameters.get("compare"));
  const earlier = make("button", { type: "button", hidden: !run.earlier }, "Load earlier steps");
  earlier.addEventListener("click", () => run_(earlier, async () => {
    const more = await ask(kind, { ...about, before: keyOf(shown.first()) });
    earlier.hidden = !more.earlier;
    if (more.steps.length) shown.before(more.steps);
  }));
  back.append(earlier);
  if (kind === "run") {
    const forks = make("button", { type: "button", title: "Looks at the first step of up to 500 runs: 2 requests each" }, "Look for forks");
    forks.addEventListener("click", () => run_(forks, async () => {
      const found = await ask("run/forks", about);
      shown.forks(found.forks);
      forks.textContent = plain(`${found.forks.length} fork${found.forks.length === 1 ? "" : "s"} among ${found.searched} runs`);
    }));
    back.append(forks);
  }
  refresh = async () => {
    const more = await ask(kind, { ...about, after: keyOf(shown.last()) });
    if (mine === drawn && more.steps.length) shown.add(more.steps);
  };
}

const place_ = (...parts) => view.replaceChildren(...parts.filter(Boolean));

function namespaces(kind, id, chosen, names) {
  if (!names || names.length < 2) return null;
  return make("nav", { class: "tools", "aria-label": "Namespaces" }, "Namespaces: ",
    ...names.map(name => make("a", { href: link(`/${kind}`, { id, namespace: name }), "data-inside": true, "aria-current": name === chosen ? "page" : null }, name ? onOneLine(name) : "the graph itself")));
}

// --- the frame -----------------------------------------------------------------------------------------------------

async function run(work) {
  try { await work(); tell(null); } catch (error) { tell(error); }
}
async function run_(button, work) {
  button.disabled = true;
  await run(work);
  button.disabled = false;
}

async function route() {
  refresh = null;
  const parameters = new URLSearchParams(location.search), path = location.pathname === "/" ? "/runs" : location.pathname;
  for (const item of document.querySelectorAll("[data-view]")) {
    if (path.startsWith("/" + item.dataset.view.slice(0, -1))) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  await run(() => path === "/run" || path === "/thread" ? showOne(path.slice(1), parameters) : showList(path === "/threads" ? "threads" : "runs", parameters));
  stamp();
}

document.addEventListener("click", event => {
  const target = event.target.closest("a[data-inside], a[data-view]");
  if (!target || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.pushState(null, "", target.getAttribute("href"));
  document.getElementById("main").focus();
  route();
});
window.addEventListener("popstate", route);
document.addEventListener("keydown", event => {
  if (event.key === "/" && view.focusSearch && !event.target.matches("input, select, textarea")) { event.preventDefault(); view.focusSearch(); }
});

async function countSessions() {
  const found = await ask("sessions").catch(() => null); // credentials need not reach them, and the page shows none
  if (!found || !found.sessions) return;
  const note = document.getElementById("sessions");
  note.textContent = `${found.sessions}${found.more ? " or more" : ""} Claude Agent SDK session${found.sessions === 1 && !found.more ? " is" : "s are"} stored here too; “s3-checkpoint sessions” lists them.`;
  note.hidden = false;
}

let read = null;
function stamp() { read = Date.now(); told(); }
function told() {
  if (!place) return;
  const age = read === null ? "" : `read ${span((Date.now() - read) / 1000)} ago`;
  document.getElementById("refreshed").textContent = !place.refresh_s ? age : paused ? `${age}, paused` : `${age}, every ${place.refresh_s} s`;
}
async function beat() {
  if (refresh && !paused && document.visibilityState === "visible" && read !== null && Date.now() - read >= place.refresh_s * 1000) {
    await run(refresh);
    stamp();
  } else told();
  setTimeout(beat, 1000);
}

run(async () => {
  place = await ask("place");
  document.getElementById("place").textContent = plain(place.place);
  const button = document.getElementById("pause");
  button.hidden = !place.refresh_s;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    told();
  });
  if (!place.threads) document.querySelector("[data-view=threads]").hidden = true;
  if (place.refresh_s) setTimeout(beat, 1000);
  countSessions();
}).then(route);
