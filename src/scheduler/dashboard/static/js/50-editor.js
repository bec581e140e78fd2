// The form of a task: rows, the preview while typing, the test call.
{
  const PAUSE_MS = 300;
  const editor = document.querySelector("[data-editor]");

  // Fields of the form, and that only a part of the page is wanted; null where it was left.
  const ask = async (address, signal) => {
    const fields = new URLSearchParams(new FormData(editor));
    fields.set("part", "1");
    const answer = await scheduler.send(address, fields, { signal });
    if (answer.redirected) // the session is over: what was typed stays here
      scheduler.toast("You are signed out. What you typed stays: saving leads to the sign-in, and back.");
    return answer.redirected ? null : { ok: answer.ok, part: scheduler.nodes(await answer.text()) };
  };

  // Put what is wrong to the fields where it stands, of those that `names` has.
  const tell = (part, names) => {
    const found = new Map();
    for (const each of part.querySelectorAll("[data-errors] [data-of]"))
      found.set(each.dataset.of, each.textContent);
    for (const place of editor.querySelectorAll("[data-error]")) {
      const name = place.dataset.error;
      if (!names(name) && !found.has(name)) continue;
      place.textContent = found.get(name) ?? "";
      for (const field of editor.querySelectorAll(`[aria-describedby~="${CSS.escape(place.id)}"]`))
        if (found.has(name)) field.setAttribute("aria-invalid", "true");
        else field.removeAttribute("aria-invalid");
    }
    part.querySelector("[data-errors]")?.remove();
  };

  const WHEN = new Set([
    "trigger", "frequency", "unit", "first_at", "scheduled_at", "cron", "rrule", "timezone",
    "dst_gap", "dst_overlap", "times_in", "start_at", "end_at", "max_runs", "jitter_seconds",
    "calendar", "calendars",
  ]);
  let waiting = 0;
  let asking = null;
  const preview = async () => {
    asking?.abort();
    asking = new AbortController();
    try {
      const found = await ask("/dashboard/preview", asking.signal);
      if (!found?.ok) return;
      tell(found.part, (name) => WHEN.has(name));
      editor.querySelector("[data-preview]").replaceChildren(found.part);
    } catch (e) {
      if (e.name !== "AbortError" && !(e instanceof TypeError)) throw e; // the network is away
    }
  };
  const soon = (event) => {
    if (!WHEN.has(event.target.name)) return;
    clearTimeout(waiting);
    waiting = setTimeout(preview, PAUSE_MS);
  };

  const trial = async (button) => {
    const place = editor.querySelector("[data-trial]");
    button.disabled = true;
    place.textContent = "Calling ...";
    try {
      const found = await ask("/dashboard/trial");
      if (found === null) return;
      tell(found.part, (name) => !WHEN.has(name));
      place.replaceChildren(found.part);
    } catch {
      place.textContent = "The server did not answer; try again.";
    } finally {
      button.disabled = false;
    }
  };

  const add = (kind) => {
    const list = editor.querySelector(`[data-rows="${kind}"]`);
    const blank = editor.querySelector(`template[data-blank="${kind}"]`);
    const row = blank.content.cloneNode(true);
    const id = `${kind}-${Date.now()}`;
    for (const each of row.querySelectorAll("[aria-describedby]"))
      each.setAttribute("aria-describedby", `e-${id}`);
    row.querySelector("[data-error]").id = `e-${id}`;
    list.append(row);
    list.lastElementChild.querySelector("input").focus();
  };

  const drop = (button) => {
    const list = button.closest("[data-rows]");
    button.closest("[data-row-of]").remove();
    (list.querySelector("[data-drop]") ?? list.parentElement.querySelector("[data-add]")).focus();
  };

  const endpoints = async (name) => {
    const query = new URLSearchParams({ service: name });
    const page = await scheduler.page(`/dashboard/new/endpoints?${query}`);
    if (page) document.getElementById("endpoints").replaceChildren(...page.querySelectorAll("option"));
  };

  if (editor) {
    editor.addEventListener("input", soon);
    editor.addEventListener("change", soon);
    editor.addEventListener("change", (event) => {
      if (event.target.name === "service") endpoints(event.target.value);
    });
    editor.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.matches("[data-add]")) add(button.dataset.add);
      else if (button?.matches("[data-drop]")) drop(button);
      else if (button?.matches("[data-try]")) trial(button);
      else return;
      event.preventDefault();
    });
  }
}
