// Times in the reader's zone, and how far away they are. Without script they are in UTC.
{
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const known = new WeakSet();

  // The reader's clock may be wrong: what counts is the server's when it made the page.
  const told = Number(document.querySelector("meta[name=now]")?.content || NaN);
  const got = performance.timeOrigin +
    (performance.getEntriesByType("navigation")[0]?.responseStart ?? performance.now());
  const skew = Number.isNaN(told) ? 0 : told - got;
  scheduler.now = () => Date.now() + skew;

  const FORM = {
    year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  };
  const clocks = new Map();

  function clock(zone) {
    if (!clocks.has(zone)) {
      let made;
      try {
        made = new Intl.DateTimeFormat("en-GB", { ...FORM, weekday: "short", timeZone: zone, timeZoneName: "short" });
      } catch {
        made = null; // a zone this browser does not know
      }
      clocks.set(zone, made);
    }
    return clocks.get(zone);
  }

  function parts(at, zone) {
    const found = {};
    for (const { type, value } of clock(zone)?.formatToParts(at) ?? []) found[type] = value;
    return found;
  }

  function exact(at, zone) {
    const p = parts(at, zone);
    return `${p.year.padStart(4, "0")}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}`;
  }

  // As `distance` of the server has it.
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function away(ms) {
    const all = Math.floor(Math.abs(ms) / 1000);
    if (all < 1) return "now";
    const first = UNITS.findIndex(([size]) => all >= size);
    const words = [];
    let left = all;
    for (const [size, unit] of UNITS.slice(first, first < 2 ? first + 2 : first + 1)) {
      const many = Math.floor(left / size);
      if (!many) break;
      words.push(`${many} ${unit}`);
      left %= size;
    }
    return ms > 0 ? `in ${words.join(" ")}` : `${words.join(" ")} ago`;
  }

  function titled(at, zone) {
    const lines = [];
    for (const each of new Set([own, "UTC", zone])) {
      if (!each || !clock(each)) continue;
      const p = parts(at, each);
      lines.push(`${p.weekday} ${exact(at, each)} ${each === "UTC" ? "UTC" : `${p.timeZoneName} (${each})`}`);
    }
    return lines.join("\n");
  }

  function show(time) {
    if (known.has(time)) return;
    known.add(time);
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime()) || at.getUTCFullYear() < 1000 || at.getUTCFullYear() > 9998) return;
    const text = [...time.childNodes].find((each) => each.nodeType === Node.TEXT_NODE && each.data.trim());
    if (text) text.data = `${exact(at, own)}${time.querySelector("small") ? " " : ""}`;
    time.title = titled(at, time.dataset.zone);
  }

  function keep(time) {
    const small = time.querySelector("small, [data-away]");
    if (!small) return;
    const words = away(Date.parse(time.dateTime) - scheduler.now());
    if (words !== small.textContent) small.textContent = words;
  }

  // What stands below a chart, and what its marks say where one points at them.
  const DAY = 86400000;
  const SAID = /(\d{4}-\d\d-\d\d) (\d\d:\d\d(?::\d\d)?)(?: to (\d\d:\d\d))? UTC/;
  function below({ dataset }) {
    const [at, step] = [Number(dataset.at), Number(dataset.step)];
    const p = parts(at, own);
    const day = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", timeZone: own }).format(at);
    if (step >= 365 * DAY) return p.year;
    if (step >= DAY || p.hour + p.minute === "0000") return day;
    const first = (p.hour * 60 + Number(p.minute)) * 60000 < step; // the first of its day
    return `${first ? `${day}, ` : ""}${p.hour}:${p.minute}`;
  }
  function worded(text) {
    return text.replace(SAID, (_, day, time, to) => {
      const at = Date.parse(`${day}T${time}Z`);
      const end = to && Date.parse(`${day}T${to}Z`);
      const until = to ? ` to ${exact(end > at ? end : end + DAY, own).slice(11, 16)}` : "";
      return exact(at, own).slice(0, 11 + time.length) + until;
    });
  }
  function draw(root) {
    for (const each of root.querySelectorAll(".chart [data-at]")) each.textContent = below(each);
    for (const each of root.querySelectorAll(".chart [data-zone-short]")) {
      each.textContent = parts(Date.now(), own).timeZoneName;
    }
    for (const each of root.querySelectorAll(".chart title, .chart td")) {
      if (!each.childElementCount && SAID.test(each.textContent)) each.textContent = worded(each.textContent);
    }
    for (const each of root.querySelectorAll(".chart [aria-label]")) {
      each.setAttribute("aria-label", worded(each.getAttribute("aria-label")));
    }
  }

  function within(root) {
    const found = root instanceof Element && root.matches("time[datetime]") ? [root] : [];
    for (const time of [...found, ...root.querySelectorAll("time[datetime]")]) {
      show(time);
      keep(time);
    }
    draw(root);
  }

  for (const each of document.querySelectorAll("[data-zone-name]")) each.textContent = own;
  within(document);
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
      for (const node of addedNodes) if (node instanceof Element) within(node);
    }
  }).observe(document.body, { childList: true, subtree: true });
  setInterval(() => {
    if (!document.hidden) document.querySelectorAll("time[datetime]").forEach(keep);
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) document.querySelectorAll("time[datetime]").forEach(keep);
  });

  // What exact times there are is seen by the keyboard, too: in the title of what has the focus.
  scheduler.on("focusin", "a, button", (link) => {
    const time = link.querySelector("time[title]");
    if (time && !link.title) link.title = time.title;
  });

  // Forms with times, and pages that are drawn by the day, know the reader's zone by this; from
  // the page to sign in on, so that the first of them does.
  const over = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `scheduler_zone=${encodeURIComponent(own)}; path=/dashboard; samesite=strict; max-age=31536000${over}`;
}
