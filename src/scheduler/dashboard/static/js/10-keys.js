// Keys. Pages say what they act on: [data-search], [data-row], [data-key="r"], [data-go="t"].
{
  const KEPT = "scheduler:keys";
  const WAIT_MS = 1500; // between `g` and the letter that follows
  const keyed = document.querySelector("meta[name=keys]") !== null; // somebody is signed in
  let going = 0;
  let current = null;

  const on = () => {
    try {
      return localStorage.getItem(KEPT) !== "off";
    } catch {
      return true; // a browser that keeps nothing
    }
  };
  const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent);

  const row = () => {
    if (current?.isConnected) return current;
    return document.activeElement?.closest("[data-row]") ?? null;
  };

  function stand(on) {
    current?.classList.remove("current");
    current = on;
    if (!on) return;
    on.classList.add("current");
    (on.querySelector("a[href]") ?? on).focus({ preventScroll: true });
    on.scrollIntoView({ block: "nearest" });
  }

  function move(by) {
    const all = rows();
    const at = all.indexOf(row());
    const to = at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by;
    if (all[to]) stand(all[to]);
  }

  function press(key) {
    const here = row();
    const outside = [...document.querySelectorAll(`[data-key="${key}"]`)]
      .find((each) => !each.closest("[data-row]"));
    (here?.querySelector(`[data-key="${key}"]`) ?? outside)?.click();
  }

  const acts = {
    "/": () => {
      const search = document.querySelector("[data-search]");
      search?.focus();
      search?.select?.();
    },
    "?": () => document.getElementById("keys")?.showModal(),
    g: () => { going = performance.now() + WAIT_MS; },
    j: () => move(1),
    k: () => move(-1),
    n: () => scheduler.form && location.assign("/dashboard/new"),
    p: () => press("p"),
    r: () => press("r"),
    x: () => row()?.querySelector("input[type=checkbox]")?.click(),
  };

  const typing = (at) => at instanceof Element && (at.isContentEditable || at.matches(
    "textarea, select, input:not([type=checkbox], [type=radio], [type=submit], [type=button])",
  ));

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(event.target)) {
      if (event.key === "Escape" && event.target.matches("[data-search]")) event.target.blur();
      return;
    }
    if (!keyed || document.querySelector("dialog[open]") || !on()) return;
    const led = performance.now() < going;
    if (led) going = 0;
    const link = led ? document.querySelector(`[data-go="${CSS.escape(event.key)}"]`) : null;
    const act = led ? link && (() => link.click()) : Object.hasOwn(acts, event.key) && acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  document.addEventListener("keydown", pressed);
  document.addEventListener("focusin", (event) => {
    const within = event.target.closest?.("[data-row]");
    if (within && within !== current) {
      current?.classList.remove("current");
      current = within;
    }
  });
  for (const box of document.querySelectorAll("[data-keys-on]")) {
    box.checked = on();
    box.addEventListener("change", () => {
      try {
        localStorage.setItem(KEPT, box.checked ? "on" : "off");
      } catch {
        scheduler.toast("This browser keeps nothing: the keys stay as they are.");
      }
    });
  }
}
