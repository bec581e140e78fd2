// Pages of what is still under way follow it: where the state in a part that is marked
// `data-follow` changes, all that are marked `data-part` are asked for anew, and take the place of
// the old ones. A part in which someone is about to do something has to wait.
{
  const AGAIN_MS = 300;
  const HELD_MS = 1000;
  const watched = new MutationObserver(() => later());
  let waiting = 0;
  let holding = 0;

  function watch() {
    watched.disconnect();
    for (const slot of document.querySelectorAll("[data-follow] [data-slot]")) {
      watched.observe(slot, { childList: true, characterData: true, subtree: true });
    }
  }

  function later() {
    clearTimeout(waiting);
    waiting = setTimeout(renew, AGAIN_MS);
  }

  async function renew() {
    if (document.querySelector("[data-follow] .gone")) return;
    const made = await scheduler.page();
    if (made) take(made);
  }

  function take(made) {
    let held = false;
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = made.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (!fresh) continue;
      if (scheduler.inUse(part)) {
        held = true;
        continue;
      }
      fresh.remove(); // the others may be taken later
      if ("steady" in part.dataset) {
        scheduler.swap(part, [...fresh.childNodes]);
        continue;
      }
      const open = [...part.querySelectorAll("details")].map((each) => each.open);
      const at = scheduler.focusable(part).indexOf(document.activeElement);
      part.replaceWith(fresh);
      [...fresh.querySelectorAll("details")].forEach((each, n) => {
        if (open[n]) each.open = true;
      });
      if (at >= 0) scheduler.focusable(fresh)[at]?.focus({ preventScroll: true });
    }
    watch();
    clearTimeout(holding);
    if (held) holding = setTimeout(() => take(made), HELD_MS);
  }

  watch();
}
