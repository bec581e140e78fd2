// Pages of what is still under way follow it: where the state in a part that is marked
// `data-follow` changes, that part is asked for anew, and takes the place of the old one.
{
  const AGAIN_MS = 300;
  const watched = new MutationObserver(() => later());
  let waiting = null;

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

  // A part in which someone is writing stays as it is.
  const busy = (part) => part.contains(document.activeElement)
    && document.activeElement.matches("input, textarea, select");

  async function renew() {
    const answer = await fetch(location.href).catch(() => null);
    if (!answer?.ok || new URL(answer.url).pathname !== location.pathname) return;
    const made = scheduler.nodes(await answer.text());
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = made.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
      if (!fresh || busy(part)) continue;
      const open = [...part.querySelectorAll("details")].map((each) => each.open);
      part.replaceWith(fresh);
      [...fresh.querySelectorAll("details")].forEach((each, n) => {
        if (open[n]) each.open = true;
      });
    }
    watch();
    document.dispatchEvent(new CustomEvent("scheduler:renewed"));
  }

  watch();
}
