package query

import (
	"net/http"
)

func (s *Server) federate(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
