// What every part of the script stands on. The parts are put together into one module, in the
// order of their names; each keeps its own names in a block, and shares through `scheduler`.
const scheduler = {
  // What a form of this session sends along; empty where nobody is signed in.
  form: document.querySelector("meta[name=form]")?.content ?? "",

  // Send fields to one of our own addresses, as a form does; the answer, whatever it says.
  send(address, fields = {}, options = {}) {
    const body = new URLSearchParams(fields);
    body.set("form", scheduler.form);
    return fetch(address, { method: "POST", body, ...options });
  },

  // One of our own pages as the server has it now; null where that cannot be had, or is another.
  async page(address = location.href) {
    try {
      const answer = await fetch(address);
      if (!answer.ok || answer.redirected) return null;
      return new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      return null; // the network is away
    }
  },

  // The markup of one of our own pages, as nodes. Nothing of it runs: the policy forbids it.
  nodes(markup) {
    const made = document.createElement("template");
    made.innerHTML = markup;
    return made.content;
  },

  // Make an element with attributes and a text.
  element(name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  },

  // Call `act(element, event)` for an event within an element that a selector names, now or later.
  on(type, selector, act) {
    document.addEventListener(type, (event) => {
      const within = event.target instanceof Element ? event.target.closest(selector) : null;
      if (within) act(within, event);
    });
  },

  // Say something in passing. `undo`: {address, fields} of the form that takes it back; `then` is
  // called once that is done, or else the page is loaded again.
  toast(text, { undo = null, then = () => location.reload(), seconds = undo ? 12 : 5 } = {}) {
    const made = scheduler.element("div", { class: "toast" });
    made.append(scheduler.element("span", {}, text));
    let over = setTimeout(() => made.remove(), seconds * 1000);
    const stay = () => clearTimeout(over);
    const leave = () => {
      stay();
      over = setTimeout(() => made.remove(), seconds * 1000);
    };
    made.addEventListener("pointerenter", stay);
    made.addEventListener("pointerleave", leave);
    made.addEventListener("focusin", stay);
    made.addEventListener("focusout", leave);
    if (undo) made.append(undoing(made, undo, then));
    document.querySelector("[data-toasts]").append(made);
    return made;
  },
};

function undoing(toast, { address, fields = {} }, then) {
  const button = scheduler.element("button", { type: "button" }, "Undo");
  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await scheduler.send(address, fields).catch(() => null);
    toast.remove();
    if (answer?.ok) then(answer);
    else scheduler.toast("That could not be undone. Load the page again to see how it stands.");
  });
  return button;
}

{
  document.documentElement.classList.add("with-script");

  // On a phone the pages' names are wider than the screen: the present one is in sight.
  const rooms = document.querySelector(".rooms");
  const here = rooms?.querySelector("[aria-current]");
  if (here) rooms.scrollLeft = here.offsetLeft - (rooms.clientWidth - here.offsetWidth) / 2;

  // A form is sent once, however often its button is clicked.
  const AGAIN_MS = 3000;
  const sent = new Set();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || form.matches("[data-here]")) return;
    if (sent.has(form)) event.preventDefault();
    sent.add(form);
    setTimeout(() => sent.delete(form), AGAIN_MS);
  });
  addEventListener("pageshow", () => sent.clear());

  scheduler.on("click", "[data-open]", (button) => {
    document.getElementById(button.dataset.open)?.showModal();
  });

  // A click beside a dialog closes it.
  scheduler.on("click", "dialog", (dialog, event) => {
    const box = dialog.getBoundingClientRect();
    const beside = event.clientX < box.left || event.clientX > box.right ||
      event.clientY < box.top || event.clientY > box.bottom;
    if (event.target === dialog && beside) dialog.close();
  });

  // Copy the text of data-copy="#id", or of the <pre> beside the button; `data-text` is, as JSON,
  // what to copy where that is not what is shown.
  scheduler.on("click", "button[data-copy]", async (button) => {
    const of = button.dataset.copy ? document.querySelector(button.dataset.copy)
      : button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(button.dataset.text ? JSON.parse(button.dataset.text) : of.textContent);
      scheduler.toast("Copied.");
    } catch {
      getSelection().selectAllChildren(of); // no leave to write there, or no TLS
      scheduler.toast("Selected: this browser has it copied by hand only.");
    }
  });
}
