// The hours of the timeline: one stop of the tab key, and arrows from there.
{
  const heat = document.querySelector("[data-heat]");
  const links = () => [...heat.querySelectorAll("a[tabindex]")];
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function stand(link) {
    for (const each of links()) each.tabIndex = -1;
    link.tabIndex = 0;
  }

  // The next hour in a direction that leads anywhere.
  function beside(link, [across, down]) {
    const cell = link.closest("td");
    let row = cell.parentElement;
    let at = cell.cellIndex;
    for (;;) {
      at += across;
      if (down) row = down > 0 ? row.nextElementSibling : row.previousElementSibling;
      const found = row?.cells[at];
      if (!found || at < 1) return null;
      const to = found.querySelector("a[tabindex]");
      if (to) return to;
    }
  }

  if (heat) {
    const first = heat.querySelector(".now a") ?? links()[0];
    if (first) stand(first);
    heat.addEventListener("keydown", (event) => {
      const link = event.target.closest("a[tabindex]");
      const to = link && STEPS[event.key] ? beside(link, STEPS[event.key]) : null;
      if (!to) return;
      event.preventDefault();
      stand(to);
      to.focus();
    });
  }
}
