// The list of tasks: what is selected, and forms that change a line in place.
{
  const boxes = () => [...document.querySelectorAll("input[name=id][form=bulk]")];

  const tell = () => {
    const bulk = document.getElementById("bulk");
    if (!bulk) return;
    const chosen = boxes().filter((box) => box.checked).length;
    const every = bulk.querySelector("[data-every]");
    every.checked = chosen > 0 && chosen === boxes().length;
    every.indeterminate = chosen > 0 && !every.checked;
    bulk.querySelector("[data-selected]").textContent =
      bulk.elements.all.checked || !chosen ? "" : `${chosen} selected`;
  };

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-every]")) {
      for (const box of boxes()) box.checked = event.target.checked;
    }
    if (event.target.closest("#bulk") || event.target.matches("[form=bulk]")) tell();
  });

  // The page that an answer leads to has the line as it stands now, and what there is to note.
  const replaced = (markup, id) => {
    const nodes = scheduler.nodes(markup);
    const notice = nodes.getElementById("notice");
    if (!notice) return false;
    const old = document.getElementById("notice");
    old.replaceChildren(...notice.childNodes);
    for (const row of nodes.querySelectorAll("tr[data-row]")) {
      const here = document.getElementById(row.id);
      if (!here || (id && row.id !== id)) continue;
      const picked = here.querySelector(".pick input").checked;
      const current = here.contains(document.activeElement);
      for (const name of here.getAttributeNames()) {
        if (!row.hasAttribute(name)) row.setAttribute(name, here.getAttribute(name));
      }
      here.replaceWith(row);
      row.querySelector(".pick input").checked = picked;
      if (current) row.querySelector("td.main a").focus();
    }
    return true;
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-here]") || !document.getElementById("notice")) return;
    const button = event.submitter;
    const row = form.closest("tr[data-row]");
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = "1";
    const fields = new FormData(form);
    if (button?.name) fields.set(button.name, button.value);
    try {
      const answer = await scheduler.send(form.action, fields);
      if (answer.status === 401) location.reload(); // the session is over
      const markup = await answer.text();
      const list = new URL(answer.url).pathname === "/dashboard/tasks";
      // What was brought back has no line here yet: the list is loaded anew.
      if (answer.ok && list && row && replaced(markup, row.id)) return;
      if (answer.ok) location.assign(answer.url);
      else complain(scheduler.nodes(markup).querySelector("main p, main .said")?.textContent);
    } catch {
      complain("The server does not answer; nothing is known of what was asked.");
    } finally {
      delete form.dataset.busy;
    }
  });

  const complain = (said) => {
    const words = said || "That did not work; load the page again.";
    document.getElementById("notice").replaceChildren(scheduler.element("p", { class: "said wrong" }, words));
  };

  // An act of thousands goes on by itself, a piece at a time.
  document.querySelector("form[data-go-on]")?.requestSubmit();
  tell();
}
