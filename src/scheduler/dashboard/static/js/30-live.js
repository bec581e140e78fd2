// What changes while a page is open: slots in place, what is new in lists, and whether all is well.
// The stream is one of events (dashboard/live.py); nothing of it is asked for by this page alone.
{
  const ADDRESS = "/dashboard/live";
  const STALE_MS = 12000; // a beat comes every 5 s
  const BEHIND_MS = 8000; // the server looks every second, where it reaches its database
  const LONGEST_MS = 30000;
  const GAP_MS = 2000; // a page that comes back sooner hears what it missed
  const HELD_MS = 1000;
  const MISSED_MS = 2000;
  const COUNTED = 1000;
  const KEPT = 200; // rows of a tail

  const badge = document.querySelector("[data-live]");
  let source = null;
  let retry = 0; // the timer of the next try
  let tries = 0;
  let heard = performance.now(); // when something last came
  let over = false;
  let held = new Map(); // what belongs where somebody is at something
  let later = 0; // the timer of that
  let made = Number(document.querySelector("meta[name=now]")?.content || 0); // by the server's clock

  const anything = () => document.querySelector("[data-slot], [data-list]") !== null;

  // What this page has of what is asked for by parts: its slots are named after them.
  const parts = () => [...new Set(
    [...document.querySelectorAll("[data-slot]")].map(({ dataset }) => dataset.slot.split(":")[0]),
  )].map(encodeURIComponent).join(",");

  function tell(word, title) {
    if (!badge || badge.dataset.live === word) return;
    badge.dataset.live = word;
    badge.textContent = { live: "Live", paused: "Paused", stale: "Not live" }[word];
    badge.title = title;
  }

  // Slots -----------------------------------------------------------------------------------------

  // What a reader sees of nodes; times by what they mean, as other parts of the script word them.
  function meaning(node) {
    if (node.nodeType === Node.TEXT_NODE) return node.data.trim();
    if (node.nodeName === "TIME") return node.dateTime;
    const own = node instanceof Element && !node.matches("[data-slot]") ? node.className + (node.dataset?.ends ?? "") : "";
    return own + (node.disabled ? "off" : "") + [...node.childNodes].map(meaning).filter(Boolean).join(" ");
  }

  function inUse(element) {
    const chosen = getSelection();
    const selected = chosen && !chosen.isCollapsed && chosen.rangeCount &&
      chosen.getRangeAt(0).intersectsNode(element);
    const at = element.contains(document.activeElement) ? document.activeElement : null;
    const typing = at?.matches("input, textarea, select");
    // What may be replaced as a whole is left alone while somebody is about to use it.
    const using = "steady" in element.dataset &&
      (at || element.matches(":hover") || element.querySelector("details[open], dialog[open]"));
    return Boolean(selected || typing || using);
  }
  scheduler.inUse = inUse;

  const focusable = scheduler.focusable = (element) => [...element.querySelectorAll("a, button, summary, [tabindex]")];

  // The columns of a table keep their widths while its cells change, unless something is cut off.
  function freeze(table) {
    const heads = [...table.tHead?.rows[0]?.cells ?? []];
    if (table.style.tableLayout || !heads[0]?.offsetWidth) return;
    const wide = heads.map((head) => head.offsetWidth);
    heads.forEach((head, n) => { head.style.width = `${wide[n]}px`; });
    table.style.tableLayout = "fixed";
  }

  function thaw(table) {
    table.style.tableLayout = "";
    for (const head of table.tHead?.rows[0]?.cells ?? []) head.style.width = "";
  }
  addEventListener("resize", () => document.querySelectorAll("table[style]").forEach(thaw));

  // Put nodes in the place of what an element holds; say whether that changed anything.
  function put(element, nodes) {
    const was = [...element.childNodes].map(meaning).join(" ").trim();
    const is = [...nodes.childNodes].map(meaning).join(" ").trim();
    if (was === is) return false;
    const at = focusable(element).indexOf(document.activeElement);
    const fresh = nodes.cloneNode(true);
    for (const field of fresh.querySelectorAll("input[name=form]")) field.value = scheduler.form;
    if ("steady" in element.dataset) return scheduler.swap(element, [...fresh.childNodes]);
    const table = element.closest("table");
    if (table) freeze(table);
    element.replaceChildren(...fresh.childNodes);
    const cell = element.closest("td");
    if (cell && cell.scrollWidth > cell.clientWidth) thaw(table);
    if (at >= 0) (focusable(element)[at] ?? focusable(element)[0])?.focus({ preventScroll: true });
    return true;
  }

  // A bar of no height with a button in it, above an element that stays where it is.
  function bar(element, words, act) {
    const made = scheduler.nodes('<div class="news-bar" role="status"><button type="button" class="news" data-news></button></div>').firstChild;
    made.firstChild.textContent = words;
    made.firstChild.addEventListener("click", act);
    element.before(made);
    return made;
  }

  // Put nodes in the place of what a part holds. What lies below is not to be moved: a part that
  // becomes smaller keeps its room, and one that becomes larger waits behind a button.
  const larger = new WeakMap(); // of a part: its bar, and what waits
  scheduler.swap = (part, fresh) => {
    const high = part.offsetHeight;
    const was = [...part.childNodes];
    part.replaceChildren(...fresh);
    const grown = part.offsetHeight > high + 1;
    const waits = larger.get(part);
    if (grown) {
      part.replaceChildren(...was);
      if (waits) waits.fresh = fresh;
      else {
        larger.set(part, { fresh, bar: bar(part, part.dataset.steady || "Show what changed", () => {
          const { fresh: last, bar: shown } = larger.get(part);
          larger.delete(part);
          shown.remove();
          part.style.minHeight = "";
          part.replaceChildren(...last);
          focusable(part)[0]?.focus({ preventScroll: true });
        }) });
      }
      return false;
    }
    waits?.bar.remove();
    larger.delete(part);
    if (part.offsetHeight < high) part.style.minHeight = `${high}px`;
    return true;
  };

  function mark(element) {
    const shown = element.closest("td") ?? element;
    shown.classList.remove("changed");
    requestAnimationFrame(() => shown.classList.add("changed"));
    setTimeout(() => shown.classList.remove("changed"), 2000);
  }

  function fill(slots) {
    for (const [name, nodes] of held) if (!slots.has(name)) slots.set(name, nodes);
    held = new Map();
    for (const element of document.querySelectorAll("[data-slot]")) {
      const nodes = slots.get(element.dataset.slot);
      if (nodes === undefined) continue;
      if (inUse(element)) held.set(element.dataset.slot, nodes);
      else if (put(element, nodes) && !("quiet" in element.dataset)) mark(element);
    }
    clearTimeout(later);
    if (held.size) later = setTimeout(() => fill(new Map()), HELD_MS);
  }

  // Only what this page has a place for is made into nodes.
  function fillMarkup(markup) {
    const slots = new Map();
    for (const { dataset } of document.querySelectorAll("[data-slot]")) {
      const text = markup[dataset.slot];
      if (text !== undefined) slots.set(dataset.slot, scheduler.nodes(text));
    }
    fill(slots);
  }

  // Lists -----------------------------------------------------------------------------------------

  const news = new WeakMap(); // of a list: the ids that are new

  const one = (of, word) => !of || of.split(",").includes(word);

  // Whether a run belongs in a list, by the filters that the page wrote on it.
  function fits({ dataset: of }, run) {
    const at = Date.parse(run.at);
    return (of.of === undefined || of.of === run.task) && one(of.states, run.state) &&
      one(of.kinds, run.kind) && (!of.reason || of.reason === run.reason) &&
      (!of.since || at >= Number(of.since)) && (!of.until || at < Number(of.until)) && !of.words;
  }

  const rowOf = (list, id) => list.querySelector(
    `[data-run="${CSS.escape(id)}"], [data-slot="run:${CSS.escape(id)}:state"]`,
  )?.closest("tr, [data-run]") ?? null;

  const taskRow = (list, id) => list.querySelector(`[data-task="${CSS.escape(id)}"]`);

  function count(list, ids, more = 0) {
    const found = news.get(list) ?? { ids: new Set(), more: 0, button: null };
    news.set(list, found);
    found.more += more;
    for (const id of ids) {
      if (found.ids.size < COUNTED) found.ids.add(id);
    }
    const many = found.ids.size + found.more;
    if (!many) return;
    if (!found.button?.isConnected) {
      const whole = list.closest("table")?.closest(".card") ?? list.closest("table") ?? list;
      found.button = bar(whole, "", () => freshen(list)).firstChild;
    }
    const said = found.ids.size < COUNTED ? many.toLocaleString("en") : `${COUNTED.toLocaleString("en")}+`;
    found.button.textContent = `${said} new`;
  }

  function counted(list) {
    news.get(list)?.button?.parentElement.remove();
    news.delete(list);
  }

  // The row of a run that is shown already, brought up to date cell by cell. Lists have not all the
  // same columns: cells are matched by their names.
  function renew(row, fresh) {
    if (!row.matches("[data-run]")) return;
    for (const cell of row.cells) {
      const of = [...fresh.cells].find(({ dataset }) => dataset.name === cell.dataset.name);
      if (of && !inUse(cell) && !cell.querySelector("input, [data-slot]") && put(cell, of)) mark(cell);
    }
  }

  function follow(list, rows) {
    const body = list.tBodies?.[0] ?? list;
    for (const row of rows) {
      body.prepend(row);
      mark(row);
    }
    while (body.children.length > KEPT) body.lastElementChild.remove();
  }

  // Whoever reads further down is not to be shifted.
  const atTop = (list) => list.getBoundingClientRect().top > -200;

  // Whether a run stands among the rows of a list, where older ones are on another page.
  function among(list, run) {
    const last = [...list.querySelectorAll("[data-run]")].at(-1)?.querySelector("time");
    return !last || !document.querySelector("nav.pages [rel=next]") ||
      Date.parse(run.at) >= Date.parse(last.dateTime);
  }

  // Tasks that were not there when this page was made.
  function meet(tasks) {
    for (const list of document.querySelectorAll("[data-list=tasks]")) {
      const { status, trigger, action, tag, words, state } = list.dataset;
      const added = tasks.filter((task) => task.at > made && !taskRow(list, task.id) &&
        one(status, task.status) && one(trigger, task.trigger) && one(action, task.action) &&
        (!tag || task.tags.includes(tag)) && !words && !state);
      count(list, added.map((task) => task.id));
    }
  }

  function take({ rows, more, cut }) {
    for (const list of document.querySelectorAll("[data-list=runs]")) {
      const added = [];
      for (const run of rows) {
        const there = rowOf(list, run.id);
        const fresh = () => scheduler.nodes(run.markup).querySelector("tr");
        if (there) renew(there, fresh());
        else if (run.new && fits(list, run) && among(list, run)) added.push(run);
      }
      const wide = more > 0 && list.dataset.of === undefined ? more : 0;
      if ("tail" in list.dataset && list.dataset.tail !== "paused" && atTop(list)) {
        follow(list, added.map((run) => scheduler.nodes(run.markup).querySelector("tr")));
        const said = document.querySelector("[data-tail-cut]");
        if (said) said.hidden = !(wide || cut);
      } else count(list, added.map((run) => run.id), wide);
    }
  }

  const lists = (root) => [...root.querySelectorAll("[data-list]")];

  // Show what is new in a list; what stands around it stays where it is.
  async function freshen(list) {
    const { first } = list.dataset;
    if (first) {
      location.assign(first);
      return;
    }
    const page = await scheduler.page();
    const fresh = page && lists(page)[lists(document).indexOf(list)];
    if (!fresh || fresh.nodeName !== list.nodeName) {
      location.reload();
      return;
    }
    counted(list);
    if (list.closest("table")) thaw(list.closest("table"));
    made = Number(page.querySelector("meta[name=now]")?.content) || made;
    const chosen = [...list.querySelectorAll("input:checked")].map(({ value }) => value);
    const rows = [...fresh.querySelectorAll("[data-run]")].filter(({ dataset }) => !rowOf(list, dataset.run));
    list.replaceChildren(...document.adoptNode(fresh).childNodes);
    rows.forEach(mark);
    for (const box of list.querySelectorAll("input[type=checkbox]")) box.checked = chosen.includes(box.value);
    const link = list.querySelector("a");
    link?.focus({ preventScroll: true });
  }

  // A page that was away is brought up to date by one look at what it would be now.
  async function catchUp() {
    const page = await scheduler.page();
    if (!page) return;
    const slots = new Map();
    for (const element of page.querySelectorAll("[data-slot]")) slots.set(element.dataset.slot, element);
    fill(slots);
    const fresh = lists(page);
    lists(document).forEach((list, n) => {
      const ids = [...fresh[n]?.querySelectorAll("[data-slot^='run:']") ?? []]
        .map(({ dataset }) => dataset.slot.split(":")[1]);
      count(list, ids.filter((id) => !rowOf(list, id)));
      const tasks = [...fresh[n]?.querySelectorAll("[data-task]") ?? []].map(({ dataset }) => dataset.task);
      count(list, tasks.filter((id) => !taskRow(list, id)));
    });
  }

  // More changed than is told, or time alone changed something: this page asks, when others do not.
  let asking = 0;
  function askSoon() {
    asking ||= setTimeout(() => {
      asking = 0;
      if (!document.hidden) catchUp();
    }, MISSED_MS * (0.5 + Math.random()));
  }

  // What ends at a time that this page knows, such as a pause: nobody tells of it.
  let ahead = made ? made - Date.now() : 0; // of the server's clock
  let seen = made;
  function lookAtEnds() {
    const now = Date.now() + ahead;
    const ends = [...document.querySelectorAll("[data-ends]")].map(({ dataset }) => Date.parse(dataset.ends));
    if (ends.some((at) => at > seen && at <= now)) askSoon();
    seen = now;
  }

  // The stream ------------------------------------------------------------------------------------

  function open() {
    clearTimeout(retry);
    if (source || over || document.hidden || !anything()) return;
    const away = performance.now() - heard;
    source = new EventSource(`${ADDRESS}?parts=${parts()}`);
    const mine = source;
    const on = (name, act) => mine.addEventListener(name, ({ data }) => {
      heard = performance.now();
      if (mine === source) act(JSON.parse(data));
    });
    on("beat", ({ now, looked }) => {
      tries = 0;
      ahead = now - Date.now();
      if (now - looked < BEHIND_MS) tell("live", "This page shows what happens as it happens");
      else tell("stale", "The server does not reach its database: this is how things stood before");
    });
    on("slots", fillMarkup);
    on("rows", take);
    on("tasks", meet);
    on("cut", askSoon);
    on("over", ({ why, said }) => {
      close();
      over = why === "session";
      tell("stale", said);
      if (!over) again(why === "many" ? LONGEST_MS * 2 : 0);
    });
    mine.addEventListener("error", () => {
      if (mine !== source) return;
      close();
      again();
    });
    if (away > GAP_MS) catchUp();
  }

  function close() {
    source?.close();
    source = null;
  }

  function again(least = 0) {
    const wait = Math.min(LONGEST_MS, 1000 * 2 ** tries) * (0.5 + Math.random() / 2);
    tries += 1;
    clearTimeout(retry);
    retry = setTimeout(open, Math.max(wait, least));
  }

  function look() {
    if (document.hidden) {
      close();
      clearTimeout(retry);
      if (!over && anything()) tell("paused", "Nothing changes here while the page is not seen");
    } else {
      tries = 0;
      open();
    }
  }

  // Nothing came for a while: the connection may be dead without anybody having said so.
  setInterval(() => {
    if (document.hidden || over || !anything()) return;
    lookAtEnds();
    const silent = performance.now() - heard;
    if (silent < STALE_MS) return;
    tell("stale", "Nothing has come from the server: this is how things stood before");
    if (source && silent > 2 * STALE_MS) {
      close();
      again();
    }
  }, 2000);

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-tail-pause]");
    if (!button) return;
    const list = document.querySelector("[data-tail]");
    const paused = list.dataset.tail !== "paused";
    list.dataset.tail = paused ? "paused" : "";
    button.textContent = paused ? "Go on" : "Pause";
    button.setAttribute("aria-pressed", String(paused));
    if (!paused && news.has(list)) freshen(list);
  });

  if (scheduler.form) {
    document.addEventListener("visibilitychange", look);
    addEventListener("pagehide", close);
    addEventListener("pageshow", ({ persisted }) => persisted && look());
    look();
  }
}
