"use strict";

const TOKEN = "sample_token";
const el = (id) => document.getElementById(id);
let socket = null;

async function call(method, path, body) {
  const headers = {};
  const token = localStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  const answer = await fetch(path, { method, headers, body });
  if (answer.status === 401 && token) leave("Your session has ended. Please log in again.");
  if (!answer.ok) {
    const detail = await answer.json().then((problem) => problem.detail || problem.title).catch(() => "");
    throw new Error(answer.status === 429 ? "Too many attempts: please wait a little." : detail || `Error ${answer.status}`);
  }
  return answer;
}

function say(text) { el("message").textContent = text; }

function leave(text) {
  localStorage.removeItem(TOKEN);
  if (socket) socket.close();
  socket = null;
  for (const id of ["files", "logout", "who"]) el(id).hidden = true;
  el("login").hidden = false;
  say(text);
}

async function enter() {
  const me = await (await call("GET", "/api/auth/me")).json();
  el("who").textContent = me.username;
  for (const id of ["files", "logout", "who"]) el(id).hidden = false;
  el("login").hidden = true;
  await list();
  connect();
}

async function list() {
  const { assets } = await (await call("GET", "/api/assets")).json();
  el("rows").replaceChildren(...assets.map(row));
}

function row(asset) {
  const line = document.createElement("tr");
  const name = line.insertCell();
  name.textContent = asset.title;
  line.insertCell().textContent = `${asset.size} bytes`;
  const actions = line.insertCell();
  actions.append(
    button("Download", asset, () => download(asset)),
    button("Share", asset, () => share(asset)),
  );
  return line;
}

function button(text, asset, act) {
  const element = document.createElement("button");
  element.type = "button";
  element.textContent = text;
  element.setAttribute("aria-label", `${text} ${asset.title}`);
  element.addEventListener("click", () => act().catch((error) => say(error.message)));
  return element;
}

async function download(asset) {
  const blob = await (await call("GET", `/api/assets/${asset.uuid}/file`)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = asset.title;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function share(asset) {
  const { url } = await (await call("POST", "/api/shares", { asset: asset.uuid })).json();
  const link = document.createElement("a");
  link.href = url;
  link.textContent = new URL(url, location.href).href;
  el("message").replaceChildren(`Everybody with this link has ${asset.title}: `, link);
}

function connect() {
  if (socket) return;
  const token = encodeURIComponent(localStorage.getItem(TOKEN));
  socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws?token=${token}`);
  socket.addEventListener("message", (event) => { el("live").textContent = event.data; });
  socket.addEventListener("close", () => { el("live").textContent = "not connected"; socket = null; });
}

el("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const body = { username: el("username").value, password: el("password").value };
    const { token } = await (await call("POST", "/api/auth/login", body)).json();
    localStorage.setItem(TOKEN, token);
    el("password").value = "";
    say("");
    await enter();
  } catch (error) {
    say(error.message);
  }
});

el("upload").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData();
  for (const file of el("chosen").files) form.append("files", file);
  try {
    await call("POST", "/api/assets", form);
    event.target.reset();
    say("Uploaded.");
    await list();
  } catch (error) {
    say(error.message);
  }
});

el("logout").addEventListener("click", () => leave("You have logged out."));

if (localStorage.getItem(TOKEN)) enter().catch((error) => say(error.message));
