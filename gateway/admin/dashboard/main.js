// The page's parts, and the session that begins with it.

import "./parts/shell.js";
import "./pages/login.js";
import "./pages/home.js";
import "./pages/rollout.js";
import "./pages/service.js";
import "./pages/history.js";
import "./pages/audit.js";
import "./pages/tokens.js";
import "./pages/nowhere.js";
import { session } from "./state/session.js";

session.resume();
